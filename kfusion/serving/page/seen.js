// What the model saw and heard: pixels and features, as small pictures.
import { element } from "./elements.js";
import { plotFeatures, plotPixels, wipe } from "./plot.js";

// image: [row][column][channel], or nothing; asFile: whether it was made from a file, not given as it is.
export function showSeen({ image, audio, asFile }) {
  const canvas = { picture: element("seen-picture"), sound: element("seen-sound") };
  if (image) {
    plotPixels(canvas.picture, image);
    const size = `${image[0].length} × ${image.length} pixels`;
    const centred = asFile && image.length === 28 && image[0].length === 28 && image[0][0].length === 1;
    tell("picture", `What the model sees: ${size}`, `${size}${centred ? ", the sign centred by its mass" : ""}.`);
  } else {
    wipe(canvas.picture);
    tell("picture", "What the model sees: nothing yet", "The picture as the network takes it.");
  }
  if (audio) {
    const { frames, coefficients } = plotFeatures(canvas.sound, audio);
    const sentence = `${frames} frames (left to right) of ${coefficients} MFCC (bottom to top), each on its own scale.`;
    tell("sound", `What the model hears: ${frames} frames of features`, sentence);
  } else {
    wipe(canvas.sound);
    tell("sound", "What the model hears: nothing yet", "The sound as the network takes it.");
  }
}

function tell(kind, label, sentence) {
  element(`seen-${kind}`).setAttribute("aria-label", label);
  element(`seen-${kind}-text`).textContent = sentence;
}
