// Drawing by keyboard: arrows move the pen, Space puts it down and lifts it.
import { SIDE } from "./draw.js";

const STEP = 14; // Of 280: a digit takes some dozens of key presses, and less if the keys are held.
const FINE_STEP = 4; // With Shift.
const DIRECTIONS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

// state: the element that says aloud whether the pen is down.
export function drawByKeys(pad, state) {
  let down = false;
  const lift = () => {
    if (!down) return;
    down = false;
    state.textContent = "Pen lifted";
    pad.lift();
  };
  const move = ([x, y], step) => {
    const inside = (value) => Math.min(SIDE, Math.max(0, value));
    pad.pen = [inside(pad.pen[0] + x * step), inside(pad.pen[1] + y * step)];
    if (down) pad.draw([pad.pen]);
    else pad.paint();
  };
  const keys = {
    " ": () => {
      if (down) return lift();
      down = true;
      state.textContent = "Pen down";
      pad.put(pad.pen);
    },
    Escape: lift,
    Backspace: () => !down && pad.strokes.length && pad.undo(),
  };
  pad.canvas.addEventListener("keydown", (event) => {
    if (pad.closed || pad.pointer !== null || event.ctrlKey || event.metaKey || event.altKey) return;
    const direction = DIRECTIONS[event.key];
    if (!direction && !keys[event.key]) return;
    event.preventDefault();
    pad.pen ??= [SIDE / 2, SIDE / 2];
    if (direction) move(direction, event.shiftKey ? FINE_STEP : STEP);
    else if (!event.repeat) keys[event.key]();
  });
  pad.canvas.addEventListener("pointerdown", () => (down = false)); // Another hand draws now.
  pad.canvas.addEventListener("blur", () => {
    lift();
    pad.pen = null;
    pad.paint();
  });
}
