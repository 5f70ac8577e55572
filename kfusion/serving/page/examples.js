// Examples that came with the model: test pairs it never trained on, each a button.
import { element } from "./elements.js";

// content(example): what the button shows; choose(example, button): what it does.
export function offerExamples(kind, examples, content, choose) {
  element(`${kind}-examples`).hidden = !examples.length;
  const items = examples.map((example) => {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-label", `Example ${kind} of ${example.class_name}`);
    button.setAttribute("aria-pressed", "false");
    button.append(content(example));
    button.addEventListener("click", () => choose(example, button));
    const item = document.createElement("li");
    item.append(button);
    return item;
  });
  element(`${kind}-examples`).querySelector("ul").replaceChildren(...items);
}

export function thumbnail({ image }) {
  const picture = new Image(28, 28);
  picture.alt = "";
  picture.src = `data:image/png;base64,${image}`;
  return picture;
}

// Marks one example as chosen, or none.
export function press(kind, chosen) {
  for (const button of element(`${kind}-examples`).querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button === chosen));
  }
}
