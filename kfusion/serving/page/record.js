// The microphone: waits for a sound, then keeps one second, with a little of what came before it.
import { wavFile } from "./sound.js";

const KEPT_S = 1;
const BEFORE_S = 0.2;
const PATIENCE_S = 6;
const HEARD = 0.02; // Level (root of the mean square) at which a sound begins.
const BLOCK_S = 0.025;

const REFUSED = {
  NotAllowedError: "The microphone was refused. Allow it in the browser, or open a sound file.",
  NotFoundError: "There is no microphone. Open a sound file instead.",
  NotReadableError: "The microphone is in use by another program. Close it there, or open a sound file.",
};

// level(value, heard): is told the loudness of each block, and whether a sound has begun.
export async function record(level, signal) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Error("The browser gives the microphone to https and localhost only. Open a sound file instead.");
  }
  const wanted = { audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false } };
  const stream = await navigator.mediaDevices.getUserMedia(wanted).catch((error) => {
    throw new Error(REFUSED[error.name] ?? `The microphone cannot be used: ${error.message}`);
  });
  const context = new AudioContext();
  try {
    await context.audioWorklet.addModule("tap.js");
    signal.throwIfAborted();
    return await listen(context, stream, level, signal);
  } finally {
    stream.getTracks().forEach((track) => track.stop());
    await context.close();
  }
}

function listen(context, stream, level, signal) {
  const rate = context.sampleRate;
  const tap = new AudioWorkletNode(context, "tap", { processorOptions: { size: Math.ceil(BLOCK_S * rate) } });
  context.createMediaStreamSource(stream).connect(tap).connect(context.destination);
  return new Promise((resolve, reject) => {
    const blocks = [];
    let first = null;
    signal.addEventListener("abort", () => reject(signal.reason));
    tap.port.onmessage = ({ data }) => {
      blocks.push(data);
      const loudness = Math.sqrt(data.reduce((sum, value) => sum + value * value, 0) / data.length);
      if (first === null && loudness > HEARD) first = Math.max(0, blocks.length - 1 - BEFORE_S / BLOCK_S);
      level(loudness, first !== null);
      const wanted = KEPT_S / BLOCK_S;
      if (first !== null && blocks.length >= first + wanted) {
        const kept = joined(blocks.slice(first, first + wanted)).subarray(0, KEPT_S * rate);
        resolve(new File([wavFile(kept, rate)], "recording"));
      } else if (first === null && blocks.length * BLOCK_S > PATIENCE_S) {
        reject(new Error(`Nothing was heard in ${PATIENCE_S} seconds. Speak up, or look at the microphone's level.`));
      }
    };
  });
}

function joined(blocks) {
  const samples = new Float32Array(blocks.reduce((sum, block) => sum + block.length, 0));
  blocks.reduce((at, block) => (samples.set(block, at), at + block.length), 0);
  return samples;
}
