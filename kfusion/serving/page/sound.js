// Any sound -> 8 kHz, mono, 16 bit, one second at least: samples to show, a WAV file to send.

const RATE_HZ = 8000;
const MAX_SECONDS = 60;
const MAX_BYTES = 50e6;

export async function readSound(file) {
  const rule = `${file.name}: must be a sound, such as WAV`;
  if (file.size > MAX_BYTES) throw new Error(`${rule}, of up to 50 MB. Found: ${Math.round(file.size / 1e6)} MB`);
  const found = file.size ? file.type || "something else" : "an empty file";
  // Decoding resamples with a proper filter; a source node at another rate would only interpolate.
  const context = new OfflineAudioContext(1, RATE_HZ, RATE_HZ);
  const decoded = await context.decodeAudioData(await file.arrayBuffer()).catch(() => {
    throw new Error(`${rule}. Found: ${found}`);
  });
  if (decoded.duration > MAX_SECONDS) {
    throw new Error(`${rule}, of up to ${MAX_SECONDS} seconds. Found: ${Math.round(decoded.duration)} seconds`);
  }
  const samples = mono(decoded);
  return { samples, wav: wavFile(samples, RATE_HZ) };
}

function mono(decoded) {
  const samples = new Float32Array(Math.max(decoded.length, RATE_HZ));
  for (let channel = 0; channel < decoded.numberOfChannels; channel++) {
    decoded.getChannelData(channel).forEach((value, at) => (samples[at] += value / decoded.numberOfChannels));
  }
  return samples;
}

export function wavFile(samples, rate) {
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
