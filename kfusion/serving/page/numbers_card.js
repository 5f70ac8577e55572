// The card of any other modality: its numbers, typed, pasted, or an example.
import { element, make, press, problem } from "./elements.js";

const MOST_TOLD = 3;

export class NumbersCard {
  // modality: {name, shape}; changed(): is called whenever `sample` has: {values}, or null.
  constructor({ name, shape }, changed) {
    this.id = `input-${name}`;
    this.title = this.noun = name;
    this.shape = this.grid = shape;
    this.size = shape.reduce((product, length) => product * length, 1);
    this.changed = changed;
    this.sample = null;
    const id = (part) => `${this.id}-${part}`;
    this.text = make("textarea", "", [], { id: id("text"), rows: 4, spellcheck: false });
    const label = make("label", "", `${this.size} numbers, separated by commas`, { htmlFor: id("text") });
    const clear = make("button", "", "Clear", { type: "button" });
    // Last, so that a sentence that comes or goes with the focus moves nothing away from under the pointer.
    const wrong = make("p", "problem", [], { id: id("problem"), hidden: true, role: "alert" });
    const title = make("h3", "", "Examples", { id: id("examples-title") });
    const examples = make("div", "examples", [title, make("ul", "", [])], { id: id("examples"), hidden: true });
    const heading = make("h2", "", name, { id: id("title") });
    this.note = make("p", "note", [], { hidden: true });
    const parts = [heading, label, this.text, this.note, make("div", "tools", clear), examples, wrong];
    const card = make("section", "card", parts, { id: this.id });
    card.setAttribute("aria-labelledby", id("title"));
    element("answer").before(card);
    this.text.addEventListener("input", () => this.typed());
    this.text.addEventListener("change", () => problem(this.id, this.wrong()));
    clear.addEventListener("click", () => this.put(""));
  }

  open() {}

  numbers() {
    return this.text.value.split(/[\s,;]+/).filter(Boolean).map(Number);
  }

  // What is wrong with the text; "" where nothing is.
  wrong() {
    const numbers = this.numbers();
    const wrong = numbers.findIndex((number) => !Number.isFinite(number));
    if (wrong >= 0) return `The ${this.noun} must be numbers, separated by commas. Found: a word in place ${wrong + 1}`;
    if (!numbers.length || numbers.length === this.size) return "";
    return `The ${this.noun} must have ${this.size} numbers. Found: ${numbers.length}`;
  }

  async typed(button) {
    problem(this.id, "");
    press(this.id, button);
    const numbers = this.numbers();
    const before = this.sample;
    this.sample = numbers.length && !this.wrong() ? { values: nested(numbers, this.shape) } : null;
    if (before || this.sample) await this.changed();
  }

  put(text, button) {
    this.text.value = text;
    return this.typed(button);
  }

  choose(values, class_name, button) {
    return this.put(values.flat(Infinity).join(", "), button);
  }

  // evidence: of each number, or nothing.
  showInput(_, evidence) {
    const places = (evidence ?? []).map((worth, at) => [worth, at + 1]).filter(([worth]) => worth > 0);
    const most = places.sort(([one], [other]) => other - one).slice(0, MOST_TOLD).map(([, place]) => place);
    this.note.hidden = !most.length;
    this.note.textContent = `Most of the evidence, in this order: number ${most.join(", number ")}.`;
  }

  remove() {
    element(this.id).remove();
  }
}

function nested(numbers, [length, ...rest]) {
  if (!rest.length) return numbers;
  const step = numbers.length / length;
  return Array.from({ length }, (_, at) => nested(numbers.slice(at * step, (at + 1) * step), rest));
}
