// A picture file -> what is shown of it, and what is sent; an example's picture -> its pixels.

const MAX_BYTES = 50e6;
const MAX_SIDE = 1024; // The server shrinks to less; a camera's picture would be over its limits.
const MAX_SENT_BYTES = 2e6;
const SENT_AS_THEY_ARE = ["image/png", "image/jpeg"];

export async function readPicture(file) {
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
export function pixelsOf(picture, channels) {
  const { width, height } = picture;
  const { data } = canvasWith(picture, 1).getContext("2d").getImageData(0, 0, width, height);
  const pixel = (at) => Array.from(data.subarray(4 * at, 4 * at + channels), (value) => value / 255);
  return Array.from({ length: height }, (_, row) => Array.from({ length: width }, (_, x) => pixel(row * width + x)));
}
