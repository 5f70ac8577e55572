// The drawing area: strokes of mouse, finger, pen or keys, or a picture from a file.

export const SIDE = 280; // Units along each side, whatever the size on the screen.
const PEN = 22; // In a digit that fills most of the area, 2 to 3 of MNIST's pixels.
const SHARPNESS = 2; // Pixels of the canvas a unit.

export class Pad {
  // began(): a stroke has; changed(): there is more or less to see than before.
  constructor(canvas, began, changed) {
    canvas.width = canvas.height = SIDE * SHARPNESS;
    this.canvas = canvas;
    this.began = began;
    this.changed = changed;
    this.strokes = [];
    this.picture = null;
    this.pointer = null;
    this.pen = null; // Where the keyboard's pen is.
    this.closed = false;
    canvas.addEventListener("pointerdown", (event) => this.begin(event));
    canvas.addEventListener("pointermove", (event) => this.go(event));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => this.end(event));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.paint());
  }

  get empty() {
    return !this.strokes.length && !this.picture;
  }

  begin(event) {
    if (this.closed || this.pointer !== null || event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.pointer = event.pointerId;
    this.pen = null;
    this.put(this.place(event));
  }

  go(event) {
    if (event.pointerId !== this.pointer) return;
    const events = event.getCoalescedEvents?.() ?? [];
    this.draw((events.length ? events : [event]).map((each) => this.place(each)));
  }

  end(event) {
    if (event.pointerId !== this.pointer) return;
    this.pointer = null;
    this.lift();
  }

  // A stroke, from whatever hand: put, draw, lift.
  put(place) {
    this.picture = null;
    this.strokes.push([place]);
    this.paint();
    this.began();
  }

  draw(places) {
    this.strokes.at(-1).push(...places);
    this.paint();
  }

  lift() {
    this.changed();
  }

  undo() {
    this.picture = null;
    this.strokes.pop();
    this.paint();
    this.changed();
  }

  clear() {
    this.show(null);
    this.changed();
  }

  // Takes no more strokes.
  close() {
    this.closed = true;
    this.canvas.tabIndex = -1;
    this.canvas.setAttribute("role", "img");
  }

  // Shows a picture instead of strokes.
  show(picture) {
    this.strokes = [];
    this.picture = picture;
    this.paint();
  }

  // The strokes as a PNG file, black on white.
  png() {
    const canvas = new OffscreenCanvas(SIDE, SIDE);
    const context = canvas.getContext("2d");
    context.fillStyle = "white";
    context.fillRect(0, 0, SIDE, SIDE);
    this.trace(context, "black");
    return canvas.convertToBlob({ type: "image/png" });
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * SIDE, ((event.clientY - box.top) / box.height) * SIDE];
  }

  paint() {
    const context = this.canvas.getContext("2d");
    context.setTransform(SHARPNESS, 0, 0, SHARPNESS, 0, 0);
    context.clearRect(0, 0, SIDE, SIDE);
    if (this.picture) {
      const { width, height } = this.picture;
      const scale = SIDE / Math.max(width, height);
      const [w, h] = [width * scale, height * scale];
      context.imageSmoothingEnabled = scale < 2;
      context.drawImage(this.picture, (SIDE - w) / 2, (SIDE - h) / 2, w, h);
    }
    const { color, outlineColor } = getComputedStyle(this.canvas);
    this.trace(context, color);
    if (!this.pen) return;
    context.beginPath();
    context.arc(...this.pen, PEN / 2, 0, 2 * Math.PI);
    context.lineWidth = 3;
    context.strokeStyle = outlineColor;
    context.stroke();
  }

  trace(context, colour) {
    context.strokeStyle = colour;
    context.lineWidth = PEN;
    context.lineCap = context.lineJoin = "round";
    for (const stroke of this.strokes) {
      context.beginPath();
      context.moveTo(...stroke[0]);
      // Through the middles between places, so that a quick hand leaves no corners.
      for (let at = 1; at < stroke.length; at++) {
        const [[x, y], [nextX, nextY]] = [stroke[at - 1], stroke[at]];
        context.quadraticCurveTo(x, y, (x + nextX) / 2, (y + nextY) / 2);
      }
      context.lineTo(...stroke.at(-1));
      context.stroke();
    }
  }
}

// Keys: arrows move the pen, Space puts it down and lifts it.
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
