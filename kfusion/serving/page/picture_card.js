// The card of the picture: drawn, dropped, opened, or an example.
import { element, make, press, problem } from "./elements.js";
import { Pad, drawByKeys } from "./pad.js";
import { plotEvidence, plotPixels, seen, wipe } from "./plot.js";
import { base64 } from "./rest.js";

const MAX_BYTES = 50e6;
const MAX_SIDE = 1024; // The server shrinks to less; a camera's picture would be over its limits.
const MAX_SENT_BYTES = 2e6;
const SENT_AS_THEY_ARE = ["image/png", "image/jpeg"];

// A picture file -> what is shown of it, and what is sent.
async function readPicture(file) {
  const rule = `${file.name}: must be a picture, such as PNG or JPEG`;
  if (file.size > MAX_BYTES) throw new Error(`${rule}, of up to 50 MB. Found: ${Math.round(file.size / 1e6)} MB`);
  let shown;
  try {
    shown = await createImageBitmap(file);
  } catch {
    throw new Error(`${rule}. Found: ${file.size ? file.type || "something else" : "an empty file"}`);
  }
  const small = Math.max(shown.width, shown.height) <= MAX_SIDE && file.size <= MAX_SENT_BYTES;
  return { shown, sent: small && SENT_AS_THEY_ARE.includes(file.type) ? file : await redrawn(shown) };
}

function redrawn(picture) {
  const scale = Math.min(1, MAX_SIDE / Math.max(picture.width, picture.height));
  return canvasWith(picture, scale).convertToBlob({ type: "image/png" });
}

function canvasWith(picture, scale) {
  const [width, height] = [picture.width, picture.height].map((size) => Math.max(1, Math.round(size * scale)));
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").drawImage(picture, 0, 0, width, height);
  return canvas;
}

// picture: of the network's own size; returns [row][column][channel] in [0, 1].
function pixelsOf(picture, channels) {
  const { width, height } = picture;
  const { data } = canvasWith(picture, 1).getContext("2d").getImageData(0, 0, width, height);
  const pixel = (at) => Array.from(data.subarray(4 * at, 4 * at + channels), (value) => value / 255);
  return Array.from({ length: height }, (_, row) => Array.from({ length: width }, (_, x) => pixel(row * width + x)));
}

export class PictureCard {
  // changed(): is called whenever `sample` has: {file: base64}, {values}, or null.
  constructor(changed) {
    this.id = this.noun = "picture";
    this.title = "Picture";
    this.channels = 1;
    this.changed = changed;
    this.sample = null;
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

  // png64: a PNG file of the network's own size, in base64.
  choose(png64, class_name, button) {
    const sent = async () => {
      const png = new Blob([Uint8Array.from(atob(png64), (letter) => letter.charCodeAt(0))], { type: "image/png" });
      const shown = await createImageBitmap(png, { colorSpaceConversion: "none" });
      return { shown, values: pixelsOf(shown, this.channels) };
    };
    return this.give(sent, `example picture of ${class_name}`, button);
  }

  // read(): what is given, perhaps with `shown`, which then takes the place of the strokes.
  async give(read, name, button) {
    const turn = ++this.turn; // What takes long to read must not come after what was given later.
    problem("picture", "");
    let content;
    try {
      content = await read();
    } catch (error) {
      return turn === this.turn && problem("picture", error.message);
    }
    if (turn !== this.turn) return;
    const { shown, ...sample } = content ?? {};
    if (shown) this.pad.show(shown);
    this.sample = content && sample;
    press("picture", button);
    element("undo").disabled = !this.pad.strokes.length;
    element("clear-picture").disabled = !content;
    element("picture").classList.toggle("given", Boolean(content));
    element("pad").setAttribute("aria-label", `Drawing area, ${name}`);
    await this.changed();
  }

  // modality: of the model.
  open({ shape, takes_files }) {
    this.grid = shape;
    this.channels = shape.at(-1);
    if (!takes_files) return this.close();
    if (this.channels === 1) return;
    this.pad.close(); // Nobody draws a photo.
    element("picture-hint").textContent = "Drop a photo, or open one.";
  }

  // What an example's button shows.
  thumbnail(png64) {
    return make("img", "", [], { width: 28, height: 28, alt: "", src: `data:image/png;base64,${png64}` });
  }

  // image: [row][column][channel], or nothing; evidence: of each value, or nothing.
  showInput(image, evidence) {
    if (!image) {
      wipe(element("seen-picture"));
      return seen("picture", "What the model sees: nothing yet", "The picture as the network takes it.");
    }
    plotPixels(element("seen-picture"), image);
    const places = evidence?.filter((_, at) => at % this.channels === 0);
    if (places) plotEvidence(element("seen-picture"), places);
    const size = `${image[0].length} × ${image.length} pixels`;
    const isDigit = image.length === 28 && image[0].length === 28 && image[0][0].length === 1;
    const centred = this.sample?.file && isDigit ? ", the sign centred by its mass" : "";
    seen("picture", `What the model sees: ${size}`, `${size}${centred}.`);
  }

  // For models that take no files.
  close() {
    this.pad.close();
    element("picture-hint").textContent = "Choose an example.";
    element("picture-file").disabled = true;
  }
}
