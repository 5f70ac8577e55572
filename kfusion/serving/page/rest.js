// The model, through the server's public REST interface.

const GONE = "The server does not answer. Is kfusion.serve still running?";
const REPLACED = "This version of the model is no longer served. Try again to ask the newest one.";

// What the page needs to know of the model: name, version, modalities, class names, examples.
export function modelInfo() {
  return request("model.json");
}

// One row to one endpoint -> its outputs. The version is named, so that the answer fits the class names.
export async function predict(model, signature, inputs, signal) {
  const body = JSON.stringify({ signature_name: signature, instances: [inputs] });
  const path = `v1/models/${encodeURIComponent(model.name)}/versions/${model.version}:predict`;
  const headers = { "Content-Type": "application/json" };
  const { predictions } = await request(path, { method: "POST", headers, body, signal });
  return predictions[0];
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
  const names = model.modalities.map(({ name }) => name);
  const present = Object.keys(samples);
  const isFile = (name) => samples[name]?.file !== undefined;
  const fileNames = model.modalities.filter((modality) => modality.takes_files).map(({ name }) => name);
  const files = Object.fromEntries(fileNames.map((name) => [`${name}_bytes`, { b64: samples[name]?.file ?? "" }]));
  const read = () => (present.some(isFile) ? predict(model, "read_bytes", files, signal) : {});
  if (present.every(isFile)) {
    const timedOutputs = await timed(() => predict(model, "raw_bytes", files, signal));
    return { ...timedOutputs, inputs: await read() };
  }
  if (present.length > 1 && present.length < names.length) {
    const missing = names.filter((name) => !samples[name]).join(", ");
    throw new Error(`This model answers to one of its inputs or to all of them. Missing: ${missing}.`);
  }
  // An example comes as the network takes it, so files beside it have to be read first.
  const contents = await read();
  const inputs = Object.fromEntries(present.map((name) => [name, samples[name].values ?? contents[name]]));
  const signature = present.length === names.length ? "serving_default" : `${present[0]}_only`;
  return { ...(await timed(() => predict(model, signature, inputs, signal))), inputs };
}

async function timed(request) {
  const began = performance.now();
  const outputs = await request();
  return { outputs, milliseconds: performance.now() - began };
}
