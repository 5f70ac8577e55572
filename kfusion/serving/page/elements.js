// The page's elements by their id, the problem that each card shows, and the buttons of its examples.

export const element = (id) => document.getElementById(id);

// An element with its class, its text or children, and any other properties.
export function make(tag, className, content, properties = {}) {
  const made = Object.assign(document.createElement(tag), { className, ...properties });
  made.append(...[content].flat());
  return made;
}

// card: the id of a card's element.
export function problem(card, sentence) {
  element(`${card}-problem`).hidden = !sentence;
  element(`${card}-problem`).textContent = sentence;
}

// One button for each example of a test sample that the model never trained on.
// noun: what it is an example of; content(example): what the button shows; choose(example, button): what it does.
export function offerExamples(card, noun, examples, content, choose) {
  element(`${card}-examples`).hidden = !examples.length;
  const items = examples.map((example) => {
    const button = make("button", "", content(example), { type: "button" });
    button.setAttribute("aria-label", `Example ${noun} of ${example.class_name}`);
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => choose(example, button));
    return make("li", "", button);
  });
  element(`${card}-examples`).querySelector("ul").replaceChildren(...items);
}

// Marks one example as chosen, or none.
export function press(card, chosen) {
  for (const button of element(`${card}-examples`).querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button === chosen));
  }
}
