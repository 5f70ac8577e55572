// The card of the sound: recorded, dropped, opened, or an example.
import { element, press, problem } from "./elements.js";
import { plotEvidence, plotFeatures, plotLevels, plotWave, seen, wipe } from "./plot.js";
import { base64 } from "./rest.js";
import { readSound, record } from "./sound.js";

// Of versions that do not say how they hear: those of the digits.
const USUAL = { rate_hz: 8000, seconds: 1, unit: "MFCC", grid: [39, 13] };
const SILENT = "This example is kept as features: nothing to play.";

export class SoundCard {
  // changed(): is called whenever `sample` has: {file: base64}, {values}, or null.
  constructor(changed) {
    this.id = this.noun = "sound";
    this.title = "Sound";
    this.changed = changed;
    this.sample = null;
    this.samples = null;
    this.turn = 0;
    this.recording = null;
    this.hearing = USUAL;
    this.replay = new Audio();
    element("record").addEventListener("click", () => this.toggle());
    element("play").addEventListener("click", () => this.play());
    element("clear-sound").addEventListener("click", () => this.clear());
  }

  clear() {
    return this.give(() => null, "empty");
  }

  take(file, name = file.name) {
    this.recording?.abort();
    return this.give(async () => {
      const { samples, wav } = await readSound(file, this.hearing);
      return { samples, wav, file: await base64(wav) };
    }, name);
  }

  choose(values, class_name, button) {
    this.recording?.abort();
    return this.give(() => ({ values }), `example sound of ${class_name}`, button);
  }

  // read(): what is given, perhaps with `samples` to show and `wav` to play.
  async give(read, name, button) {
    const turn = ++this.turn; // What takes long to read must not come after what was given later.
    problem("sound", "");
    let content;
    try {
      content = await read();
    } catch (error) {
      return turn === this.turn && problem("sound", error.message);
    }
    if (turn !== this.turn) return;
    const { samples, wav, ...sample } = content ?? {};
    this.sample = content && sample;
    this.samples = samples ?? null;
    this.replay.pause();
    URL.revokeObjectURL(this.replay.src);
    if (wav) this.replay.src = URL.createObjectURL(wav);
    press("sound", button);
    element("play").disabled = !wav;
    element("clear-sound").disabled = !content;
    element("sound").classList.toggle("given", Boolean(content));
    element("sound-state").textContent = sample.values ? SILENT : "";
    element("wave").setAttribute("aria-label", `Waveform, ${name}`);
    this.paint();
    await this.changed();
  }

  paint() {
    if (this.samples) plotWave(element("wave"), this.samples);
    else wipe(element("wave"));
  }

  play() {
    // To stop it early is no failure.
    this.replay.play().catch((error) => error.name === "AbortError" || problem("sound", `Cannot play: ${error.message}`));
  }

  async toggle() {
    if (this.recording) return this.recording.abort();
    await this.clear();
    const turn = this.turn;
    const stop = (this.recording = new AbortController());
    element("sound").classList.add("given");
    element("record").textContent = "Cancel";
    element("sound-state").textContent = "Waiting for the microphone …";
    const heard = await this.listen(stop.signal).catch((error) => error);
    this.recording = null;
    element("record").textContent = "Record";
    if (turn !== this.turn) return; // What was given meanwhile stays.
    if (heard instanceof File) return this.take(heard, "a recording");
    await this.clear();
    if (!stop.signal.aborted) problem("sound", heard.message);
  }

  listen(signal) {
    const levels = [];
    return record((loudness, begun) => {
      if (signal.aborted) return;
      levels.push(loudness);
      plotLevels(element("wave"), levels);
      element("sound-state").textContent = begun ? "Recording …" : "Listening. Say it now.";
    }, this.hearing.seconds, signal);
  }

  // modality: of the model.
  open({ takes_files, shape, hears }) {
    const other = !hears && shape[0] % USUAL.grid[1]; // Features of another kind, of which nothing is known.
    this.hearing = hears ?? (other ? { ...USUAL, unit: "features", grid: [shape[0], 1] } : USUAL);
    const { seconds } = this.hearing;
    element("sound-kept").textContent = seconds === 1 ? "one second is" : `${seconds} seconds are`;
    if (!takes_files) this.close();
  }

  get grid() {
    return this.hearing.grid;
  }

  // features: frame after frame, or nothing; evidence: likewise.
  showInput(features, evidence) {
    if (!features) {
      wipe(element("seen-sound"));
      return seen("sound", "What the model hears: nothing yet", "The sound as the network takes it.");
    }
    const [, coefficients] = this.hearing.grid;
    const frames = features.length / coefficients;
    plotFeatures(element("seen-sound"), features, coefficients);
    const place = (at) => (at % frames) * coefficients + coefficients - 1 - Math.floor(at / frames);
    if (evidence) plotEvidence(element("seen-sound"), evidence.map((_, at) => evidence[place(at)]));
    const values = `${coefficients} ${this.hearing.unit}`;
    const sentence = `${frames} frames (left to right) of ${values} (bottom to top), each on its own scale.`;
    seen("sound", `What the model hears: ${frames} frames of features`, sentence);
  }

  // For models that take no files.
  close() {
    element("sound-hint").textContent = "Choose an example.";
    element("sound-file").disabled = element("record").disabled = true;
  }
}
