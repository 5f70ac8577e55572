// The card of the picture: drawn, dropped, opened, or an example.
import { base64 } from "./ask.js";
import { Pad } from "./draw.js";
import { element, problem } from "./elements.js";
import { press } from "./examples.js";
import { drawByKeys } from "./keys.js";
import { pixelsOf, readPicture } from "./picture.js";

export class PictureCard {
  // changed(): is called whenever `given` has: {file: base64}, {pixels}, or null.
  constructor(changed) {
    this.changed = changed;
    this.given = null;
    this.turn = 0;
    this.pad = new Pad(element("pad"), () => element("picture").classList.add("given"), () => this.drawn());
    drawByKeys(this.pad, element("pad-state"));
    element("undo").addEventListener("click", () => this.pad.undo());
    element("clear-picture").addEventListener("click", () => this.pad.clear());
  }

  drawn() {
    const sent = async () => (this.pad.empty ? null : { file: await base64(await this.pad.png()) });
    return this.give(sent, this.pad.empty ? "empty" : "a drawing");
  }

  take(file) {
    return this.give(async () => {
      const { shown, sent } = await readPicture(file);
      return { shown, file: await base64(sent) };
    }, file.name);
  }

  // example: with a PNG file of the network's own size.
  choose({ image, class_name }, channels, button) {
    const sent = async () => {
      const png = new Blob([Uint8Array.from(atob(image), (letter) => letter.charCodeAt(0))], { type: "image/png" });
      const shown = await createImageBitmap(png, { colorSpaceConversion: "none" });
      return { shown, pixels: pixelsOf(shown, channels) };
    };
    return this.give(sent, `example picture of ${class_name}`, button);
  }

  // read(): what is given, perhaps with `shown`, which then takes the place of the strokes.
  async give(read, name, button) {
    const turn = ++this.turn; // What takes long to read must not come after what was given later.
    problem("picture", "");
    let found;
    try {
      found = await read();
    } catch (error) {
      return turn === this.turn && problem("picture", error.message);
    }
    if (turn !== this.turn) return;
    const { shown, ...given } = found ?? {};
    if (shown) this.pad.show(shown);
    this.given = found && given;
    press("picture", button);
    element("undo").disabled = !this.pad.strokes.length;
    element("clear-picture").disabled = !found;
    element("picture").classList.toggle("given", Boolean(found));
    element("pad").setAttribute("aria-label", `Drawing area, ${name}`);
    await this.changed();
  }

  // For models that take no files.
  close() {
    this.pad.close();
    element("picture-hint").textContent = "Choose an example.";
    element("picture-file").disabled = true;
  }
}
