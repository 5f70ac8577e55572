// The model, asked through the server's public REST interface.

const GONE = "The server does not answer. Is kfusion.serve still running?";
const REPLACED = "This version of the model is no longer served. Try again to ask the newest one.";

// What the page has to know of the model: name, version, class names, examples.
export function aboutModel() {
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
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    throw error.name === "AbortError" ? error : new Error(GONE);
  }
  const body = await answer.json().catch(() => ({}));
  if (answer.status === 404) throw new Error(REPLACED);
  if (!answer.ok) throw new Error(body.error ?? `the server answered ${answer.status}`);
  return body;
}
