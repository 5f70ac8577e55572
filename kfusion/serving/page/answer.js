// What is given -> what the model says, and what it saw and heard.
import { predict } from "./ask.js";

// picture: {file: base64} or {pixels: [row][column][channel]}; sound: {file: base64} or {features: numbers}; or null.
// Returns said: the endpoint's outputs; milliseconds: until they were here; image, audio: what the network took.
export async function answer(model, { picture, sound }, signal) {
  const files = { image_bytes: { b64: picture?.file ?? "" }, audio_bytes: { b64: sound?.file ?? "" } };
  const read = () => (picture?.file || sound?.file ? predict(model, "read_bytes", files, signal) : {});
  if (!picture?.pixels && !sound?.features) {
    const answered = await timed(() => predict(model, "raw_bytes", files, signal));
    return { ...(await read()), ...answered };
  }
  // An example comes as the network takes it, so whatever goes with it has to be read first.
  const found = await read();
  const inputs = {};
  if (picture) inputs.image = picture.pixels ?? found.image;
  if (sound) inputs.audio = sound.features ?? found.audio;
  const signature = picture && sound ? "serving_default" : picture ? "image_only" : "audio_only";
  return { ...inputs, ...(await timed(() => predict(model, signature, inputs, signal))) };
}

async function timed(ask) {
  const began = performance.now();
  const said = await ask();
  return { said, milliseconds: performance.now() - began };
}
