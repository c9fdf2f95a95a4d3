// Filters and sorts the claims. The page is complete without it: nothing is fetched or written.
document.addEventListener("DOMContentLoaded", () => {
  const form = document.querySelector(".ledger-controls");
  if (!form) return;
  const claims = [...document.querySelectorAll("article.claim")];
  const status = form.querySelector("[role=status]");
  const rank = (name) => [...form.querySelectorAll(`[name=${name}]`)].map((box) => box.value);
  const ranks = { verdict: rank("verdict"), kind: rank("kind") };

  function show() {
    const chosen = new FormData(form);
    const words = chosen.get("text").toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const claim of claims) {
      const text = claim.textContent.toLowerCase();
      claim.hidden = !(
        chosen.getAll("verdict").includes(claim.dataset.verdict) &&
        chosen.getAll("kind").includes(claim.dataset.kind) &&
        words.every((word) => text.includes(word))
      );
      count += !claim.hidden;
    }
    status.textContent = `${count} of ${claims.length} claims shown`;
  }

  function sort() {
    const by = form.elements.order.value;
    const place = (claim) => (ranks[by] ? ranks[by].indexOf(claim.dataset[by]) : 0);
    claims.sort((a, b) => place(a) - place(b) || a.dataset.order - b.dataset.order);
    claims[0].parentElement.append(...claims);
  }

  // A link such as claims.html#verdict=contradicted shows those claims alone.
  function applyAddress() {
    const wanted = new URLSearchParams(location.hash.slice(1)).get("verdict");
    if (!ranks.verdict.includes(wanted)) return;
    form.querySelectorAll("[name=verdict]").forEach((box) => (box.checked = box.value === wanted));
  }

  form.addEventListener("input", () => (sort(), show()));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => (sort(), show())));
  addEventListener("hashchange", () => (applyAddress(), show()));
  form.hidden = false;
  applyAddress();
  sort();
  show();
});
