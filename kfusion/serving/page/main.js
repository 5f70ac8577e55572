// The page: what is given, the question to the model, and what is shown of its answer.
import { answer } from "./answer.js";
import { aboutModel } from "./ask.js";
import { acceptDrops } from "./drop.js";
import { element, problem } from "./elements.js";
import { offerExamples, thumbnail } from "./examples.js";
import { PictureCard } from "./picture_card.js";
import { showSeen } from "./seen.js";
import { showAnswer, showNothing, showTrouble } from "./show.js";
import { SoundCard } from "./sound_card.js";

const cards = { picture: new PictureCard(ask), sound: new SoundCard(ask) };
let model = null;
let offered = null;
let asking = null;
let seen = {};

async function start() {
  try {
    model = await aboutModel();
  } catch (error) {
    return fail(error);
  }
  const { examples, licence, name, version, signatures, image_shape } = model;
  if (!signatures.includes("raw_bytes") || !signatures.includes("read_bytes")) takeNoFiles();
  offer(examples, image_shape.at(-1));
  element("about").textContent =
    `Model ${name}, version ${version}. ` +
    (examples.length
      ? `The examples are test pairs that it was not trained on. Licence of the ${licence}.`
      : "It brings no examples: kfusion.export adds some where the data’s licence is known.");
  await ask();
}

function offer(examples, channels) {
  const told = JSON.stringify(examples);
  if (told === offered) return; // The same buttons stay, and the focus on them.
  offered = told;
  offerExamples("picture", examples, thumbnail, (example, button) => cards.picture.choose(example, channels, button));
  offerExamples("sound", examples, (example) => example.class_name, (example, button) =>
    cards.sound.choose(example, button),
  );
}

// Such a model was trained on arrays; what made them of files nobody told.
function takeNoFiles() {
  const left = model.examples.length ? "The examples work." : `Programs can ask it, at /v1/models/${model.name}.`;
  element("notice").textContent = `This model takes no files, so there is nothing to draw or record. ${left}`;
  element("notice").hidden = false;
  Object.values(cards).forEach((card) => card.close());
}

async function ask() {
  asking?.abort();
  if (!model) return await start();
  const current = (asking = new AbortController());
  const given = { picture: cards.picture.given, sound: cards.sound.given };
  if (!element("answer-problem").hidden) showTrouble("");
  if (!given.picture && !given.sound) {
    showNothing(model.class_names);
    return remember({});
  }
  try {
    const { said, milliseconds, image, audio } = await answer(model, given, current.signal);
    if (current !== asking) return;
    showAnswer(model, said, milliseconds);
    remember({ image: given.picture && image, audio: given.sound && audio, asFile: Boolean(given.picture?.file) });
  } catch (error) {
    if (current === asking) fail(error);
  }
}

function remember(found) {
  seen = found;
  showSeen(seen);
}

function fail(error) {
  showNothing(model?.class_names ?? []);
  remember({});
  const [, input, sentence] = /^(image|audio)_bytes, row 0: (.*)/s.exec(error.message) ?? [];
  const kind = { image: "picture", audio: "sound" }[input];
  if (kind) return problem(kind, `The ${kind} ${sentence}`);
  model = null; // Asked for anew the next time: the server may come back with another version.
  showTrouble(error.message);
}

for (const [kind, card] of Object.entries(cards)) {
  element(`${kind}-file`).addEventListener("change", async (event) => {
    const [file] = event.target.files;
    if (file) await card.take(file);
    event.target.value = ""; // So that the same file can be chosen again.
  });
}
element("again").addEventListener("click", ask);
acceptDrops((kind, file) => element(`${kind}-file`).disabled || cards[kind].take(file));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  cards.sound.paint();
  showSeen(seen);
});
showNothing([]);
start();
