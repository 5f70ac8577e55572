// The card of the sound: recorded, dropped, opened, or an example.
import { base64 } from "./ask.js";
import { element, problem } from "./elements.js";
import { press } from "./examples.js";
import { plotLevels, plotWave, wipe } from "./plot.js";
import { record } from "./record.js";
import { readSound } from "./sound.js";

const SILENT = "This example is kept as features: nothing to play.";

export class SoundCard {
  // changed(): is called whenever `given` has: {file: base64}, {features}, or null.
  constructor(changed) {
    this.changed = changed;
    this.given = null;
    this.samples = null;
    this.turn = 0;
    this.recording = null;
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
      const { samples, wav } = await readSound(file);
      return { samples, wav, file: await base64(wav) };
    }, name);
  }

  choose({ audio, class_name }, button) {
    this.recording?.abort();
    return this.give(() => ({ features: audio }), `example sound of ${class_name}`, button);
  }

  // read(): what is given, perhaps with `samples` to show and `wav` to play.
  async give(read, name, button) {
    const turn = ++this.turn; // What takes long to read must not come after what was given later.
    problem("sound", "");
    let found;
    try {
      found = await read();
    } catch (error) {
      return turn === this.turn && problem("sound", error.message);
    }
    if (turn !== this.turn) return;
    const { samples, wav, ...given } = found ?? {};
    this.given = found && given;
    this.samples = samples ?? null;
    this.replay.pause();
    URL.revokeObjectURL(this.replay.src);
    if (wav) this.replay.src = URL.createObjectURL(wav);
    press("sound", button);
    element("play").disabled = !wav;
    element("clear-sound").disabled = !found;
    element("sound").classList.toggle("given", Boolean(found));
    element("sound-state").textContent = given.features ? SILENT : "";
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
    }, signal);
  }

  // For models that take no files.
  close() {
    element("sound-hint").textContent = "Choose an example.";
    element("sound-file").disabled = element("record").disabled = true;
  }
}
