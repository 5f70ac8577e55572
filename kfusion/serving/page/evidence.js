// Where the evidence lies: what the log-odds of the answer lose where a part of an input is hidden, put at the input's
// own median. As kfusion.explain finds it, `kfusion/prediction/explanation.py`; asked for through the same interface.
import { predictAll } from "./rest.js";

const WINDOW = 5; // Windows beside each other on an axis; each is moved by half its size.
const [MAX_ROWS, MAX_VALUES] = [16, 200_000]; // Of one request; servers have limits.
const TINY = 1.2e-38;

// inputs: what the answer rests on, by modality, one of them or all, as the network takes them; grids: their shapes,
// by modality. Returns for each what its values are worth to the class `label`, in their order.
export async function occlusion(model, inputs, grids, label, signal) {
  const names = Object.keys(inputs);
  const signature = names.length === model.modalities.length ? "serving_default" : `${names[0]}_only`;
  const odds = async (instances) => (await predictAll(model, signature, instances, signal)).map((row) => logOdds(row, label));
  const [whole] = await odds([inputs]);
  const size = Object.values(inputs).flat(Infinity).length;
  const rows = Math.max(1, Math.min(MAX_ROWS, Math.floor(MAX_VALUES / size)));
  const evidence = {};
  for (const name of names) {
    const values = inputs[name].flat(Infinity);
    const medians = mediansOf(values, grids[name]);
    const windows = windowsOf(grids[name]);
    const [sum, count] = [new Float64Array(values.length), new Float64Array(values.length)];
    for (let from = 0; from < windows.length; from += rows) {
      const chunk = windows.slice(from, from + rows);
      const hiddenOdds = await odds(chunk.map((window) => ({ ...inputs, [name]: hide(inputs[name], values, medians, window) })));
      chunk.forEach((window, at) => {
        for (const place of window) {
          sum[place] += whole - hiddenOdds[at];
          count[place] += 1;
        }
      });
    }
    evidence[name] = Array.from(sum, (total, place) => total / count[place]);
  }
  return evidence;
}

function logOdds({ probabilities }, label) {
  const others = probabilities.reduce((sum, each, at) => (at === label ? sum : sum + each), 0);
  return Math.log(Math.max(probabilities[label], TINY)) - Math.log(Math.max(others, TINY));
}

// The places of each window, in an array of that grid; the channels of a picture are hidden together.
export function windowsOf(grid) {
  const spans = grid.map((size, axis) => {
    const width = axis === 2 ? size : Math.max(1, Math.round(size / WINDOW));
    const starts = [];
    for (let start = 0; start < size - width; start += Math.max(1, Math.floor(width / 2))) starts.push(start);
    return [...starts, size - width].map((start) => Array.from({ length: width }, (_, at) => start + at));
  });
  const joined = (one, other, size) => one.flatMap((place) => other.map((at) => place * size + at));
  return spans.reduce(
    (windows, own, axis) => windows.flatMap((window) => own.map((span) => joined(window, span, grid[axis]))),
    [[0]],
  );
}

// The median over a picture's pixels in each channel, over a sound's frames in each band; of other numbers, over all.
function mediansOf(values, grid) {
  const period = grid.length > 1 ? grid.at(-1) : 1;
  return Array.from({ length: period }, (_, own) => {
    const sorted = values.filter((value, at) => at % period === own && !Number.isNaN(value)).sort((a, b) => a - b);
    const middle = (sorted.length - 1) / 2;
    return (sorted[Math.floor(middle)] + sorted[Math.ceil(middle)]) / 2;
  });
}

// The same nested array with some places at the median.
function hide(nested, values, medians, window) {
  const hidden = [...values];
  for (const place of window) hidden[place] = medians[place % medians.length];
  let next = 0;
  const filled = (part) => part.map((each) => (Array.isArray(each) ? filled(each) : hidden[next++]));
  return filled(nested);
}
