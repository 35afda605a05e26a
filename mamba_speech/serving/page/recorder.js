// Passes the microphone's samples on, a tenth of a second at a time.

class Recorder extends AudioWorkletProcessor {
  constructor() {
    super();
    this.pieces = [];
    this.count = 0;
  }

  process([input]) {
    if (!input.length) return true;
    this.pieces.push(input[0].slice());
    this.count += input[0].length;
    if (this.count >= sampleRate / 10) {
      const whole = new Float32Array(this.count);
      this.pieces.reduce((at, one) => (whole.set(one, at), at + one.length), 0);
      this.port.postMessage(whole);
      this.pieces = [];
      this.count = 0;
    }
    return true;
  }
}

registerProcessor("recorder", Recorder);
