// Reads the explanation of a chosen answer aloud. It is seen without this script.
document.addEventListener("change", (event) => {
  const quiz = event.target.closest(".quiz");
  if (!quiz) return;
  const chosen = quiz.querySelector("input:checked + label + .quiz-explanation");
  quiz.querySelector(".quiz-aloud").textContent = chosen.textContent;
});
