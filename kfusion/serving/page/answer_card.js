// The card of the answer: in words and bars.
import { element, make } from "./elements.js";

const MAX_ROWS = 12;
const hidden = (text) => make("span", "hidden", text);

// cards: of the model's modalities, by their names; hint: what to do first.
export function showNothing(classNames, cards, hint) {
  state("empty");
  element("label").replaceChildren(hidden("No answer yet"));
  element("verdict").textContent = hint;
  element("latency").textContent = element("added").textContent = "";
  showBars(classNames, cards, {});
}

// outputs: the endpoint's; a modality that is absent has probabilities of 0.
// names: of the model's modalities, in the order of the outputs that have a column for each.
export function showAnswer(classNames, cards, names, outputs, milliseconds) {
  const present = Object.keys(cards).filter((name) => outputs[`${name}_probabilities`]?.some(Boolean));
  const votes = present.map((name) => classNames[bestOf(outputs[`${name}_probabilities`])]);
  const nouns = present.map((name) => cards[name].noun);
  const top = Math.max(...outputs.probabilities);
  const sure = `, ${top < 0.9995 ? percent(top) : "over 99.9"} % sure.`;
  const agree = new Set(votes).size < 2;
  const strange = present.filter((name) => outputs.used && !outputs.used[names.indexOf(name)]);
  if (outputs.accepted === false) return showUnknown(classNames, cards, names, outputs, nouns, sure, milliseconds);
  state(agree ? "answered" : "conflict");
  element("label").replaceChildren(hidden("The answer is "), outputs.class_name);
  const says = nouns.map((noun, at) => `the ${noun} says ${votes[at]}`).join(", ");
  const all = `${nouns.slice(0, -1).join(", ")} and ${nouns.at(-1)}`;
  element("verdict").textContent =
    present.length < 2
      ? `By the ${nouns[0]}${Object.keys(cards).length > 1 ? " alone" : ""}${sure}`
      : agree
        ? `${all[0].toUpperCase()}${all.slice(1)} agree${sure}`
        : `They disagree: ${says}. Together: ${outputs.class_name}${sure}`;
  if (strange.length) {
    const known = present.filter((name) => !strange.includes(name)).map((name) => cards[name].noun);
    element("verdict").textContent =
      `I don’t know this ${strange.map((name) => cards[name].noun).join(" or this ")}. ` +
      `By the ${known.join(" and the ")} alone${sure}`;
  }
  showRest(classNames, cards, names, outputs, milliseconds);
}

// What follows the headline: bars, what each input adds, what else the answer may be, and how long it took.
function showRest(classNames, cards, names, outputs, milliseconds) {
  const used = names.filter((name, at) => outputs.used?.[at] ?? outputs[`${name}_probabilities`]?.some(Boolean));
  const worth = (name) => outputs.shares[names.indexOf(name)];
  const listed = (name) => `${cards[name].noun} ${worth(name) < 0 ? "−" : "+"}${Math.abs(worth(name)).toFixed(1)}`;
  const set = classNames.filter((_, at) => outputs.prediction_set?.[at]);
  const lines = [];
  if (outputs.shares && used.length > 1) {
    lines.push(`What each adds to the log-odds of ${outputs.class_name}: ${used.map(listed).join(", ")}.`);
  }
  if (set.length > 1) lines.push(`With the promised coverage it is one of: ${set.join(", ")}.`);
  element("added").textContent = lines.join(" ");
  element("latency").textContent = `Answered in ${Math.max(1, Math.round(milliseconds))} ms, there and back.`;
  showBars(classNames, cards, outputs);
}

// Nothing of it is like anything that the model was trained on.
function showUnknown(classNames, cards, names, outputs, nouns, sure, milliseconds) {
  state("conflict");
  element("label").replaceChildren(hidden("No answer: unknown"), make("span", "", "?", { ariaHidden: "true" }));
  element("verdict").textContent =
    `I don’t know this ${nouns.join(" or this ")}. A guess: ${outputs.class_name}${sure}`;
  showRest(classNames, cards, names, outputs, milliseconds);
}

export function showTrouble(sentence) {
  state(sentence ? "trouble" : "empty");
  element("answer-problem").hidden = !sentence;
  element("answer-problem-text").textContent = sentence;
}

function showBars(classNames, cards, outputs) {
  const alone = Object.entries(cards).map(([name, { title }]) => [title, outputs[`${name}_probabilities`]]);
  const columns = alone.length === 1 ? alone : [["Together", outputs.probabilities], ...alone];
  const heads = columns.map(([title]) => make("th", "", title, { scope: "col" }));
  for (const head of heads) head.style.width = `${99 / heads.length}%`;
  element("bars").tHead.rows[0].replaceChildren(make("td", "", []), ...heads);
  let rows = classNames.map((_, row) => row);
  if (rows.length > MAX_ROWS) {
    rows = rows.sort((a, b) => (outputs.probabilities?.[b] ?? 0) - (outputs.probabilities?.[a] ?? 0)).slice(0, MAX_ROWS);
  }
  const shares = columns.map(([, values]) => (values?.some(Boolean) ? values : null));
  const best = shares.map((values) => (values ? bestOf(values) : -1));
  element("bars").tBodies[0].replaceChildren(...rows.map((row) => barRow(classNames[row], row, shares, best)));
}

function barRow(name, row, shares, best) {
  const cells = shares.map((values, column) => {
    const bar = make("i", "", []);
    bar.style.width = `${100 * (values?.[row] ?? 0)}%`;
    const number = make("span", "number", values ? percent(values[row]) : "–");
    return make("td", best[column] === row ? "best" : "", [make("span", "track", bar), number]);
  });
  return make("tr", "", [make("th", "", name, { scope: "row" }), ...cells]);
}

function bestOf(values) {
  return values.indexOf(Math.max(...values));
}

// Near certainty the tenths are what matters.
function percent(share) {
  const value = 100 * share;
  if (value > 99 && value < 99.95) return value.toFixed(1);
  return value > 0.05 && value < 0.95 ? "<1" : value.toFixed(0);
}

function state(name) {
  element("answer").dataset.state = name;
}
