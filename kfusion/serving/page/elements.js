// The page's elements by their id, and the sentence beside the card that it is about.

export const element = (id) => document.getElementById(id);

export function problem(kind, sentence) {
  element(`${kind}-problem`).hidden = !sentence;
  element(`${kind}-problem`).textContent = sentence;
}
