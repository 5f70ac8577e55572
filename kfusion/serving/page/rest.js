// The model, through the server's public REST interface.

const GONE = "The server does not answer. Is kfusion.serve still running?";
const REPLACED = "This version of the model is no longer served. Try again to ask the newest one.";

// What the page needs to know of the model: name, version, modalities, class names, examples.
export function modelInfo() {
  return request("model.json");
}

// One row to one endpoint -> its outputs.
export async function predict(model, signature, inputs, signal) {
  return (await predictAll(model, signature, [inputs], signal))[0];
}

// The same for several rows. The version is named, so that the answer fits the class names.
export async function predictAll(model, signature, instances, signal) {
  // TensorFlow Serving reads NaN in JSON, which the standard has not.
  const text = JSON.stringify({ signature_name: signature, instances }, (_, value) =>
    Number.isNaN(value) ? "NaN" : value,
  );
  const body = text.replaceAll('"NaN"', "NaN");
  const path = `v1/models/${encodeURIComponent(model.name)}/versions/${model.version}:predict`;
  const headers = { "Content-Type": "application/json" };
  return (await request(path, { method: "POST", headers, body, signal })).predictions;
}

// A file's content as the REST interface takes it.
export async function base64(blob) {
  const url = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
  return url.slice(url.indexOf(",") + 1);
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    throw error.name === "AbortError" ? error : new Error(GONE);
  }
  const body = await response.json().catch(() => ({}));
  if (response.status === 404) throw new Error(REPLACED);
  if (!response.ok) throw new Error(body.error ?? `the server answered ${response.status}`);
  return body;
}

// samples: for each modality that is there {file: base64} or {values: as the network takes it}.
// Returns outputs: the endpoint's; milliseconds: until they were here; inputs: what the network took, by modality.
export async function ask(model, samples, signal) {
  const { modalities, signatures } = model;
  const present = Object.keys(samples);
  const hasFiles = present.some((name) => samples[name].file !== undefined);
  const row = rawRow(modalities, samples);
  const read = () => (hasFiles ? predict(model, "read_bytes", row, signal) : {});
  const takesArrays = present.length === 1 || present.length === modalities.length;
  // Examples of pictures and sounds come as the network takes them, not as files.
  const isRaw = modalities.every(({ name, takes_files }) => !takes_files || samples[name]?.values === undefined);
  if (isRaw && (hasFiles || !takesArrays) && signatures.includes("raw_bytes")) {
    const answer = await timed(() => predict(model, "raw_bytes", row, signal));
    return { ...answer, inputs: await read() };
  }
  if (!takesArrays) {
    const missing = modalities.map(({ name }) => name).filter((name) => !samples[name]).join(", ");
    throw new Error(`This model answers to one such input or to all of them. Missing: ${missing}.`);
  }
  const contents = await read(); // Files beside an example have to be read first.
  const inputs = Object.fromEntries(present.map((name) => [name, samples[name].values ?? contents[name]]));
  const signature = present.length === modalities.length ? "serving_default" : `${present[0]}_only`;
  return { ...(await timed(() => predict(model, signature, inputs, signal))), inputs };
}

// A row of raw_bytes: files, and numbers of modalities that have no files; "" and NaN for what is absent.
function rawRow(modalities, samples) {
  const entry = ({ name, shape, takes_files }) =>
    takes_files
      ? [`${name}_bytes`, { b64: samples[name]?.file ?? "" }]
      : [name, samples[name]?.values ?? filled(shape, NaN)];
  return Object.fromEntries(modalities.map(entry));
}

function filled([length, ...rest], value) {
  return Array.from({ length }, () => (rest.length ? filled(rest, value) : value));
}

async function timed(request) {
  const began = performance.now();
  const outputs = await request();
  return { outputs, milliseconds: performance.now() - began };
}
