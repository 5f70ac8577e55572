// Runs beside the page, where sound is processed: hands on what the microphone hears, block by block.
class Tap extends AudioWorkletProcessor {
  constructor({ processorOptions }) {
    super();
    this.block = new Float32Array(processorOptions.size);
    this.filled = 0;
  }

  process([[heard]]) {
    for (const value of heard ?? []) {
      this.block[this.filled++] = value;
      if (this.filled === this.block.length) {
        this.port.postMessage(this.block.slice());
        this.filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("tap", Tap);
