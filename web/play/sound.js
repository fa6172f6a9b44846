// Small synthesised sounds: no files, nothing before the first key or touch (browsers insist).

const RECIPES = {
  // [wave, from Hz, to Hz, seconds, volume]
  pick: ['triangle', 620, 980, 0.09, 0.10],
  rich: ['triangle', 700, 1560, 0.24, 0.14],
  dash: ['sawtooth', 240, 90, 0.14, 0.05],
  steal: ['square', 880, 1320, 0.16, 0.06],
  robbed: ['square', 420, 160, 0.22, 0.07],
  rumble: ['sawtooth', 46, 38, 0.55, 0.16],
  breach: ['sawtooth', 130, 34, 0.7, 0.20],
  swallow: ['sine', 320, 50, 0.6, 0.22],
  thump: ['sine', 90, 46, 0.18, 0.24],
  start: ['triangle', 330, 660, 0.3, 0.10],
  over: ['triangle', 520, 180, 0.8, 0.12],
};

export class Sound {
  #context = null;
  muted = false;

  /** From an input handler only. */
  unlock() {
    try {
      this.#context ??= new AudioContext();
      if (this.#context.state === 'suspended') this.#context.resume();
    } catch { /* no audio device: a silent game */ }
  }

  play(name, pitch = 1) {
    const context = this.#context;
    if (this.muted || context?.state !== 'running') return;
    const [wave, from, to, seconds, volume] = RECIPES[name];
    const oscillator = context.createOscillator();
    const gain = context.createGain();
    const start = context.currentTime;
    oscillator.type = wave;
    oscillator.frequency.setValueAtTime(from * pitch, start);
    oscillator.frequency.exponentialRampToValueAtTime(to * pitch, start + seconds);
    gain.gain.setValueAtTime(volume, start);
    gain.gain.exponentialRampToValueAtTime(0.0001, start + seconds);
    oscillator.connect(gain).connect(context.destination);
    oscillator.start();
    oscillator.stop(start + seconds);
  }
}
