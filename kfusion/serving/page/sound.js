// Any sound, from a file or the microphone -> the model's rate, mono, 16 bit, a second at least of a word: samples, and WAV.

const MAX_SECONDS = 60;
const MAX_BYTES = 50e6;

// hearing: the rate at which the model hears, and what it makes of a sound.
export async function readSound(file, { rate_hz: rateHz, unit }) {
  const rule = `${file.name}: must be a sound, such as WAV`;
  if (file.size > MAX_BYTES) throw new Error(`${rule}, of up to 50 MB. Found: ${Math.round(file.size / 1e6)} MB`);
  const found = file.size ? file.type || "something else" : "an empty file";
  // Decoding resamples with a proper filter; a source node at another rate would only interpolate.
  const context = new OfflineAudioContext(1, rateHz, rateHz);
  const decoded = await context.decodeAudioData(await file.arrayBuffer()).catch(() => {
    throw new Error(`${rule}. Found: ${found}`);
  });
  if (decoded.duration > MAX_SECONDS) {
    throw new Error(`${rule}, of up to ${MAX_SECONDS} seconds. Found: ${Math.round(decoded.duration)} seconds`);
  }
  const samples = mono(decoded, unit === "MFCC" ? rateHz : 0);
  return { samples, wav: wavFile(samples, rateHz) };
}

function mono(decoded, least) {
  const samples = new Float32Array(Math.max(decoded.length, least));
  for (let channel = 0; channel < decoded.numberOfChannels; channel++) {
    decoded.getChannelData(channel).forEach((value, at) => (samples[at] += value / decoded.numberOfChannels));
  }
  return samples;
}

function wavFile(samples, rate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, word) => [...word].forEach((letter, place) => view.setUint8(at + place, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // One channel.
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((value, at) => {
    view.setInt16(44 + 2 * at, Math.max(-32768, Math.min(32767, Math.round(value * 32768))), true);
  });
  return new Blob([view], { type: "audio/wav" });
}

// The microphone waits for a sound, then keeps some seconds, with a little of what came before it.
const BEFORE_S = 0.2;
const PATIENCE_S = 6;
const HEARD = 0.02; // Level (root of the mean square) at which a sound begins.
const BLOCK_S = 0.025;

const REFUSED = {
  NotAllowedError: "The microphone was refused. Allow it in the browser, or open a sound file.",
  NotFoundError: "There is no microphone. Open a sound file instead.",
  NotReadableError: "The microphone is in use by another program. Close it there, or open a sound file.",
};

// level(value, heard): is told the loudness of each block, and whether a sound has begun; seconds: that are kept.
export async function record(level, seconds, signal) {
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
    return await listen(context, stream, level, seconds, signal);
  } finally {
    stream.getTracks().forEach((track) => track.stop());
    await context.close();
  }
}

function listen(context, stream, level, seconds, signal) {
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
      const wanted = Math.ceil(seconds / BLOCK_S);
      if (first !== null && blocks.length >= first + wanted) {
        const kept = joined(blocks.slice(first, first + wanted)).subarray(0, seconds * rate);
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
