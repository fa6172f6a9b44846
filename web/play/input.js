// Keyboard, mouse and touch to one thing: a steering vector and the wish to dash.

const KEYS = {
  KeyW: [0, -1], ArrowUp: [0, -1], KeyS: [0, 1], ArrowDown: [0, 1],
  KeyA: [-1, 0], ArrowLeft: [-1, 0], KeyD: [1, 0], ArrowRight: [1, 0],
};
const STICK = 64; // pixels of drag for full pace
const DEAD = 22; // pixels around the runner where the pointer means "stand still"
const FULL = 150; // pixels from the runner where it means "run"
const TAP_MS = 220;
const TAP_PX = 14;

const pace = (x, y, dead, full) => {
  const length = Math.hypot(x, y);
  if (length <= dead) return [0, 0];
  const strength = Math.min(1, (length - dead) / (full - dead)) / length;
  return [x * strength, y * strength];
};

/**
 * `on.dash()`, `on.space()`, `on.activity()` are called at once; steering is asked for with
 * `steer(myScreenPosition)`. `on.playing()` says whether the arena takes input.
 */
export class Input {
  #held = new Set();
  #mouse = null; // last pointer position while the mouse steers
  #stick = null; // {id, x, y, dx, dy, at, moved}

  constructor(stage, dashButton, on) {
    this.on = on;
    window.addEventListener('keydown', (event) => this.#key(event, true));
    window.addEventListener('keyup', (event) => this.#key(event, false));
    window.addEventListener('blur', () => this.release());
    stage.addEventListener('pointerdown', (event) => this.#down(event, stage));
    stage.addEventListener('pointermove', (event) => this.#move(event));
    for (const type of ['pointerup', 'pointercancel']) stage.addEventListener(type, (event) => this.#up(event));
    stage.addEventListener('contextmenu', (event) => event.preventDefault());
    dashButton.addEventListener('pointerdown', (event) => {
      event.preventDefault();
      on.activity();
      on.dash();
    });
  }

  get stick() { return this.#stick; }

  release() {
    this.#held.clear();
    this.#mouse = null;
    this.#stick = null;
  }

  steer(me) {
    if (this.#stick) return pace(this.#stick.dx, this.#stick.dy, 6, STICK);
    if (this.#held.size > 0) {
      let [x, y] = [0, 0];
      for (const code of this.#held) {
        x += KEYS[code][0];
        y += KEYS[code][1];
      }
      const length = Math.hypot(x, y) || 1;
      return [x / length, y / length];
    }
    if (this.#mouse && me) return pace(this.#mouse.x - me.x, this.#mouse.y - me.y, DEAD, FULL);
    return [0, 0];
  }

  #key(event, down) {
    if (event.target instanceof HTMLInputElement || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.code === 'Space' || (event.code === 'Enter' && event.target === document.body)) {
      // A focused button would take Space for a click; the game's meaning of it wins but in dialogs.
      if (event.target instanceof HTMLButtonElement && !this.on.playing()) return;
      event.preventDefault();
      if (down && !event.repeat) {
        this.on.activity();
        this.on.space();
      }
      return;
    }
    if (!(event.code in KEYS)) {
      if (down && event.code === 'KeyM') this.on.mute();
      return;
    }
    if (this.on.playing()) event.preventDefault();
    if (down) {
      this.on.activity();
      this.#mouse = null;
      this.#held.add(event.code);
    } else this.#held.delete(event.code);
  }

  #down(event, stage) {
    this.on.activity();
    if (!this.on.playing()) return;
    if (event.pointerType === 'mouse') {
      this.#mouse = { x: event.clientX, y: event.clientY };
      this.on.dash();
      return;
    }
    document.body.classList.add('touch');
    if (this.#stick) { // a second finger
      this.on.dash();
      return;
    }
    stage.setPointerCapture(event.pointerId);
    this.#stick = { id: event.pointerId, x: event.clientX, y: event.clientY, dx: 0, dy: 0, at: event.timeStamp, moved: false };
  }

  #move(event) {
    if (!this.on.playing()) return;
    if (event.pointerType === 'mouse') {
      // Moving the mouse steers, so it counts as playing; keys hold until the mouse moves again.
      if (Math.abs(event.movementX) + Math.abs(event.movementY) === 0) return;
      if (this.#held.size === 0) this.#mouse = { x: event.clientX, y: event.clientY };
      this.on.activity();
      return;
    }
    const stick = this.#stick;
    if (stick?.id !== event.pointerId) return;
    stick.dx = event.clientX - stick.x;
    stick.dy = event.clientY - stick.y;
    stick.moved ||= Math.hypot(stick.dx, stick.dy) > TAP_PX;
    const reach = Math.hypot(stick.dx, stick.dy);
    if (reach > STICK) { // the stick follows the finger, so that turning back is short
      stick.x += stick.dx * (1 - STICK / reach);
      stick.y += stick.dy * (1 - STICK / reach);
    }
    this.on.activity();
  }

  #up(event) {
    const stick = this.#stick;
    if (stick?.id !== event.pointerId) return;
    this.#stick = null;
    if (!stick.moved && event.timeStamp - stick.at < TAP_MS && this.on.playing()) this.on.dash();
  }
}
