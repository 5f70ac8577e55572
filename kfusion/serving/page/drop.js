// Files dropped on the page: on a card they are that card's, elsewhere their type decides.

export function acceptDrops(take) {
  const cards = [...document.querySelectorAll("#picture, #sound")];
  const target = (event) => event.target.closest?.("#picture, #sound");
  const mark = (marked) => cards.forEach((card) => card.classList.toggle("over", card === marked));
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    mark(target(event));
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget ?? mark(null));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    mark(null);
    const file = event.dataTransfer.files[0];
    if (file) take(target(event)?.id ?? (file.type.startsWith("audio/") ? "sound" : "picture"), file);
  });
}
