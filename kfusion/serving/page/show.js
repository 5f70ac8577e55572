// The answer in words and bars.
import { element } from "./elements.js";

const MAX_ROWS = 12;
const VIEWS = ["probabilities", "image_probabilities", "audio_probabilities"];

export function showNothing(classNames) {
  state("empty");
  element("label").replaceChildren(hidden("No answer yet"));
  element("verdict").textContent = "Draw or say something, and the answer appears here.";
  element("latency").textContent = "";
  showBars(classNames, {}, [false, false]);
}

export function showAnswer(model, said, milliseconds) {
  const names = model.class_names;
  const best = VIEWS.map((view) => names[said[view].indexOf(Math.max(...said[view]))]);
  const [image, audio] = said.present;
  const agree = best[1] === best[2];
  const top = Math.max(...said.probabilities);
  const sure = `, ${top < 0.9995 ? percent(top) : "over 99.9"} % sure.`;
  state(image && audio && !agree ? "conflict" : "answered");
  element("label").replaceChildren(hidden("The answer is "), said.class_name);
  element("verdict").textContent = !(image && audio)
    ? `By the ${image ? "picture" : "sound"} alone${sure}`
    : agree
      ? `Picture and sound agree${sure}`
      : `They disagree: the picture says ${best[1]}, the sound says ${best[2]}. Together: ${said.class_name}${sure}`;
  element("latency").textContent = `Answered in ${Math.max(1, Math.round(milliseconds))} ms, there and back.`;
  showBars(names, said, said.present);
}

export function showTrouble(sentence) {
  state(sentence ? "trouble" : "empty");
  element("answer-problem").hidden = !sentence;
  element("answer-problem-text").textContent = sentence;
}

function showBars(names, said, [image, audio]) {
  let rows = names.map((_, row) => row);
  if (rows.length > MAX_ROWS) {
    rows = rows.sort((a, b) => (said.probabilities?.[b] ?? 0) - (said.probabilities?.[a] ?? 0)).slice(0, MAX_ROWS);
  }
  const there = [image || audio, image, audio];
  const shares = VIEWS.map((view, column) => (there[column] ? said[view] : null));
  const best = shares.map((values) => (values ? values.indexOf(Math.max(...values)) : -1));
  element("bars").tBodies[0].replaceChildren(...rows.map((row) => barRow(names[row], row, shares, best)));
}

function barRow(name, row, shares, best) {
  const line = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = name;
  line.append(head);
  shares.forEach((values, column) => {
    const cell = line.insertCell();
    cell.className = best[column] === row ? "best" : "";
    const bar = document.createElement("i");
    bar.style.width = `${100 * (values?.[row] ?? 0)}%`;
    const track = document.createElement("span");
    track.className = "track";
    track.append(bar);
    const number = document.createElement("span");
    number.className = "number";
    number.textContent = values ? percent(values[row]) : "–";
    cell.append(track, number);
  });
  return line;
}

// Near certainty the tenths are what matters.
function percent(share) {
  const value = 100 * share;
  if (value > 99 && value < 99.95) return value.toFixed(1);
  return value > 0.05 && value < 0.95 ? "<1" : value.toFixed(0);
}

function hidden(text) {
  const span = document.createElement("span");
  span.className = "hidden";
  span.textContent = text;
  return span;
}

function state(name) {
  element("answer").dataset.state = name;
}
