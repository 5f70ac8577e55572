// The page: a card for each modality of the model, the question to it, and what is shown of its answer.
import { showAnswer, showNothing, showTrouble } from "./answer_card.js";
import { element, offerExamples, problem } from "./elements.js";
import { occlusion } from "./evidence.js";
import { NumbersCard } from "./numbers_card.js";
import { PictureCard } from "./picture_card.js";
import { ask, modelInfo } from "./rest.js";
import { SoundCard } from "./sound_card.js";

const OWN = { image: new PictureCard(update), audio: new SoundCard(update) };
const SENSES = "Draw or say something, and the answer appears here.";
const ANY = "Fill in one card or all, and the answer appears here.";
let cards = OWN; // By modality.
let model = null;
let offered = null;
let asking = null;
let inputs = {};
let evidence = {}; // Of the answer, in the inputs.

async function start() {
  try {
    model = await modelInfo();
  } catch (error) {
    return fail(error);
  }
  const { examples, licence, name, version } = model;
  openCards();
  offer(examples);
  element("about").textContent =
    `Model ${name}, version ${version}. ` +
    (examples.length
      ? `The examples are test pairs that it was not trained on. Licence of the ${licence}.`
      : "It brings no examples: kfusion.export adds some where the data’s licence is known.");
  await update();
}

// The cards of the model's modalities; those that other cards had stay as they are.
function openCards() {
  const before = cards;
  const known = model.modalities.map((modality) => modality.name);
  const own = Object.keys(OWN).filter((name) => known.includes(name));
  const other = model.modalities.filter(({ name }) => !OWN[name]);
  const fits = ({ name, shape }) => before[name] && String(before[name].shape) === String(shape);
  for (const name of Object.keys(before)) {
    if (!OWN[name] && !other.some((modality) => modality.name === name && fits(modality))) before[name].remove();
  }
  const numbers = other.map((modality) => {
    return [modality.name, fits(modality) ? before[modality.name] : new NumbersCard(modality, update)];
  });
  cards = Object.fromEntries([...own.map((name) => [name, OWN[name]]), ...numbers]);
  element("cards").dataset.cards = Object.keys(cards).length;
  for (const [name, { id }] of Object.entries(OWN)) element(id).hidden = !cards[name];
  for (const modality of model.modalities) cards[modality.name].open(modality);
  if (!isUsual() && known.length) {
    element("title").textContent = model.name;
    const more = known.length > 1 ? " One of them is enough." : "";
    element("intro").textContent = `This model takes: ${nouns().join(", ")}.${more}`;
  }
  const unread = own.some((name) => !model.modalities.find((modality) => modality.name === name).takes_files);
  element("notice").hidden = !unread && known.length > 0;
  const left = model.examples.length ? "The examples work." : `Programs can ask it, at /v1/models/${model.name}.`;
  element("notice").textContent = `This model takes no files, so there is nothing to draw or record. ${left}`;
}

function isUsual() {
  return String(Object.keys(cards)) === String(Object.keys(OWN));
}

function nouns() {
  return Object.values(cards).map((card) => card.noun);
}

function offer(examples) {
  const text = JSON.stringify([Object.keys(cards), examples]);
  if (text === offered) return; // The same buttons stay, and the focus on them.
  offered = text;
  for (const [name, card] of Object.entries(cards)) {
    const shown = examples.filter((example) => example[name]);
    const content = (example) => card.thumbnail?.(example[name]) ?? example.class_name;
    const choose = (example, button) => card.choose(example[name], example.class_name, button);
    offerExamples(card.id, card.noun, shown, content, choose);
  }
}

async function update() {
  asking?.abort();
  if (!model) return await start();
  const current = (asking = new AbortController());
  const given = Object.entries(cards).filter(([, card]) => card.sample);
  if (!element("answer-problem").hidden) showTrouble("");
  element("why-text").textContent = "";
  if (!given.length) {
    showEmpty();
    return showInputs({});
  }
  const samples = Object.fromEntries(given.map(([name, { sample }]) => [name, sample]));
  try {
    const answer = await ask(model, samples, current.signal);
    if (current !== asking) return;
    const names = model.modalities.map((modality) => modality.name);
    showAnswer(model.class_names, cards, names, answer.outputs, answer.milliseconds);
    showInputs(Object.fromEntries(given.map(([name]) => [name, answer.inputs[name]])));
    await explain(answer.outputs, current);
  } catch (error) {
    if (current === asking) fail(error);
  }
}

// Where the evidence for an answer lies, if that is asked for.
async function explain(outputs, current) {
  if (!element("why").checked) return;
  const names = model.modalities.map(({ name }) => name);
  const used = names.filter((name, at) => inputs[name] && (outputs.used?.[at] ?? true));
  if (used.length > 1 && used.length < names.length) {
    element("why-text").textContent = "Only an answer to one input, or to all of them, can be looked into.";
    return;
  }
  element("why-text").textContent = "Looking …";
  const grids = Object.fromEntries(used.map((name) => [name, cards[name].grid]));
  const own = Object.fromEntries(used.map((name) => [name, inputs[name]]));
  try {
    const marked = await occlusion(model, own, grids, outputs.label, current.signal);
    if (current !== asking) return;
    showInputs(inputs, marked);
    const place = `where the evidence for ${outputs.class_name} lies`;
    element("why-text").textContent = `Coloured in what the model took: ${place}.`;
  } catch (error) {
    if (current !== asking) return;
    element("why-text").textContent = `It cannot be looked into: ${error.message}`; // The answer stays.
  }
}

function showEmpty() {
  showNothing(model?.class_names ?? [], cards, isUsual() ? SENSES : ANY);
}

function showInputs(values, marked = {}) {
  inputs = values;
  evidence = marked;
  for (const [name, card] of Object.entries(cards)) card.showInput(inputs[name], evidence[name]);
}

function fail(error) {
  showEmpty();
  showInputs({});
  const [, name, ofFile, ofNumbers] = /^(\w+?)(?:_bytes, row 0: (.*)| (must .*))/s.exec(error.message) ?? [];
  const card = cards[name];
  if (card) return problem(card.id, `The ${card.noun} ${ofFile ?? ofNumbers}`);
  model = null; // Asked for anew the next time: the server may come back with another version.
  showTrouble(error.message);
}

// Files dropped on the page: on a card they are that card's, elsewhere their type decides.
function acceptDrops(take) {
  const targets = Object.values(OWN).map(({ id }) => element(id));
  const target = (event) => targets.find((card) => card.contains(event.target));
  const mark = (marked) => targets.forEach((card) => card.classList.toggle("over", card === marked));
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

for (const card of Object.values(OWN)) {
  element(`${card.id}-file`).addEventListener("change", async (event) => {
    const [file] = event.target.files;
    if (file) await card.take(file);
    event.target.value = ""; // So that the same file can be chosen again.
  });
}
element("again").addEventListener("click", update);
element("why").addEventListener("change", async () => {
  if (!element("why").checked) showInputs(inputs);
  await update();
});
acceptDrops((id, file) => {
  const card = Object.values(cards).find((each) => each.id === id);
  if (card && !element(`${id}-file`).disabled) card.take(file);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  OWN.audio.paint();
  showInputs(inputs, evidence);
});
showEmpty();
start();
