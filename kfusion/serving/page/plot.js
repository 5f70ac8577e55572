// Small pictures: levels, a waveform, pixels, features. Their colour is that of the canvas in the style sheet.
import { element } from "./elements.js";

// Pixels of a canvas that is as large as the style sheet says.
const fine = (canvas) => [canvas.clientWidth * 2, canvas.clientHeight * 2];

function canvasContext(canvas, width, height) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  context.fillStyle = getComputedStyle(canvas).color;
  return context;
}

// samples: in [-1, 1]; a bar for each column, from the lowest to the highest.
export function plotWave(canvas, samples, columns = 140) {
  const context = canvasContext(canvas, ...fine(canvas));
  const peak = samples.reduce((top, value) => Math.max(top, Math.abs(value)), 0.05);
  for (let column = 0; column < columns; column++) {
    const from = Math.floor((column * samples.length) / columns);
    const to = Math.max(from + 1, Math.floor(((column + 1) * samples.length) / columns));
    let top = 0;
    for (const value of samples.subarray(from, to)) top = Math.max(top, Math.abs(value));
    bar(context, column, top / peak, columns);
  }
}

// levels: loudness of each block, newest last, drawn from the right.
export function plotLevels(canvas, levels, columns = 70) {
  const context = canvasContext(canvas, ...fine(canvas));
  levels.slice(-columns).forEach((level, at, shown) => {
    bar(context, columns - shown.length + at, Math.min(1, Math.sqrt(level) * 1.6), columns);
  });
}

function bar(context, column, share, columns) {
  const { width, height } = context.canvas;
  const step = width / columns;
  const size = Math.max(2, share * height * 0.7);
  context.fillRect(column * step, (height - size) / 2, step * 0.6, size);
}

// image: [row][column][channel] in [0, 1], as the network takes it.
export function plotPixels(canvas, image) {
  const [height, width] = [image.length, image[0].length];
  const context = canvasContext(canvas, width, height);
  const data = context.createImageData(width, height);
  image.flat().forEach((pixel, at) => {
    const [red, green = red, blue = red] = pixel;
    data.data.set([red * 255, green * 255, blue * 255, 255], at * 4);
  });
  context.putImageData(data, 0, 0);
}

// features: frame after frame; time to the right, the first coefficient at the bottom, each on its own scale.
export function plotFeatures(canvas, features, coefficients) {
  const frames = features.length / coefficients;
  const context = canvasContext(canvas, frames, coefficients);
  for (let row = 0; row < coefficients; row++) {
    const values = Array.from({ length: frames }, (_, frame) => features[frame * coefficients + row]);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    values.forEach((value, frame) => {
      context.globalAlpha = (value - low) / (high - low || 1);
      context.fillRect(frame, coefficients - 1 - row, 1, 1);
    });
  }
}

// evidence: of each place of a canvas, row by row; where there is more of it, more of the colour covers the canvas.
export function plotEvidence(canvas, evidence) {
  const { width } = canvas;
  const context = canvas.getContext("2d");
  const most = Math.max(...evidence);
  context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--evidence");
  evidence.forEach((worth, at) => {
    context.globalAlpha = most > 0 ? Math.max(0, (0.85 * worth) / most) : 0;
    context.fillRect(at % width, Math.floor(at / width), 1, 1);
  });
}

export function wipe(canvas) {
  canvasContext(canvas, 1, 1);
}

// The words beside what the network took of a card's sample.
export function seen(card, label, sentence) {
  element(`seen-${card}`).setAttribute("aria-label", label);
  element(`seen-${card}-text`).textContent = sentence;
}
