// Filters the table of verdicts. The page is complete without it: nothing is fetched or written.
document.addEventListener("DOMContentLoaded", () => {
  const form = document.querySelector(".verdict-controls");
  if (!form) return;
  const rows = [...document.querySelectorAll(".verdict-table tbody tr")];
  const status = form.querySelector("[role=status]");

  function show() {
    const chosen = new FormData(form);
    let count = 0;
    for (const row of rows) {
      row.hidden = !["verdict", "part"].every((by) => chosen.getAll(by).includes(row.dataset[by]));
      count += !row.hidden;
    }
    status.textContent = `${count} of ${rows.length} claims shown`;
  }

  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(show));
  form.hidden = false;
  show();
});
