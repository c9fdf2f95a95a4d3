(() => {
  const all = [...document.querySelectorAll("figure.explore")];

  function show(figure) {
    const inputs = [...figure.querySelectorAll("input")];
    const frames = [...figure.querySelectorAll(".explore-frame")];
    let position = 0;
    for (const input of inputs) {
      const labels = JSON.parse(input.dataset.labels);
      input.setAttribute("aria-valuetext", labels[input.value]);
      input.nextElementSibling.textContent = labels[input.value];
      position = position * labels.length + Number(input.value);
    }
    frames.forEach((frame, index) => { frame.hidden = index !== position; });
    const sentence = frames[position].firstElementChild.getAttribute("aria-label");
    const caption = figure.querySelector("figcaption");
    if (caption.textContent !== sentence) caption.textContent = sentence;
  }

  function start(figure) {
    // The same output may stand on a page twice: ids must not.
    const id = figure.dataset.explore;
    const taken = new Set(all.filter((other) => other !== figure).map((f) => f.dataset.explore));
    for (let copy = 2; taken.has(figure.dataset.explore); copy++) {
      figure.dataset.explore = `${id}-copy${copy}`;
    }
    if (figure.dataset.explore !== id) {
      figure.innerHTML = figure.innerHTML.replaceAll(id, figure.dataset.explore);
    }
    figure.querySelector(".explore-controls").hidden = false;
    figure.querySelector(".explore-note").hidden = true;
    figure.addEventListener("input", () => show(figure));
    show(figure);
    // On reload and on "back" the browser puts sliders where the reader left them.
    addEventListener("pageshow", () => show(figure));
  }

  for (const figure of all) {
    if (figure.started) continue;
    figure.started = true;
    start(figure);
  }
})();
