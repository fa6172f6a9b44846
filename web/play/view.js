// What the page knows of the arena: server states in, a smooth picture for any instant out.
// No DOM and no canvas in here.

const DELAY = 0.085; // seconds behind the server: two to three ticks, enough to interpolate
const KEEP = 40; // states
const DOWN = 2;
export const FLAG = { dash: 1, shield: 2, stun: 4, rock: 8, asleep: 16 };
export const STATUS = { waiting: 0, running: 1, down: DOWN, out: 3 };

const lerp = (a, b, t) => a + (b - a) * t;

function player(row) {
  const [id, status, x, y, vx, vy, flags, score, best, multiplier, lives, noise, dash] = row;
  return { id, status, x, y, vx, vy, flags, score, best, multiplier, lives, noise, dash };
}

/** A jump farther than a dash can go is a respawn: no sliding across the arena. */
const jumped = (a, b) => Math.hypot(a.x - b.x, a.y - b.y) > 160;

export class View {
  constructor() {
    this.hello = null;
    this.names = new Map(); // avatar id -> {name, hue}
    this.reset();
  }

  reset() {
    this.states = [];
    this.spice = [];
    this.latest = null;
    this.offset = null; // arrival time minus server time, the smallest lately seen
  }

  get tickHz() { return this.hello?.tick_hz ?? 30; }

  takeHello(message) {
    this.hello = message;
    this.reset();
  }

  takeRoster(message) {
    this.names = new Map(message.p.map(({ id, name, hue }) => [id, { name, hue }]));
  }

  /** `at` is seconds on the page's clock. Returns the decoded state. */
  takeState(message, at) {
    const time = message.k / this.tickHz;
    if (this.latest && time <= this.latest.time) this.states = []; // another server
    if (message.sp) {
      this.spice = [];
      for (let i = 0; i < message.sp.length; i += 4) {
        const [id, x, y, rich] = message.sp.slice(i, i + 4);
        this.spice.push({ id, x, y, rich: rich === 1 });
      }
    }
    const state = {
      time,
      phase: message.ph,
      left: message.left / this.tickHz,
      round: message.rd,
      players: new Map(message.p.map((row) => [row[0], player(row)])),
      worms: message.w.map(([mood, x, y, hx, hy, left]) => ({ mood, x, y, hx: hx / 100, hy: hy / 100, left })),
      thumpers: message.th.map(([x, y, left]) => ({ x, y, left })),
      blow: message.b ? { x: message.b[0], y: message.b[1], left: message.b[2] / this.tickHz } : null,
    };
    // The fastest message of the last seconds tells the clocks' difference best; drift slowly up
    // so that a route that became slower is believed in time.
    const seen = at - time;
    this.offset = this.offset === null || Math.abs(seen - this.offset) > 1 ? seen : Math.min(seen, this.offset + 0.0005);
    this.states.push(state);
    if (this.states.length > KEEP) this.states.shift();
    this.latest = state;
    return state;
  }

  /** The arena at page time `at`, own avatar as far ahead as is known. */
  sample(at, myId) {
    if (!this.latest) return null;
    const time = at - this.offset - DELAY;
    let after = this.states.findIndex((state) => state.time >= time);
    if (after === -1) after = this.states.length - 1;
    const b = this.states[after];
    const a = this.states[Math.max(0, after - 1)];
    const t = b.time > a.time ? Math.min(1, Math.max(0, (time - a.time) / (b.time - a.time))) : 1;
    const players = [];
    for (const next of b.players.values()) {
      const before = a.players.get(next.id);
      const still = !before || jumped(before, next) || before.status === DOWN;
      players.push(still ? { ...next } : { ...next, x: lerp(before.x, next.x, t), y: lerp(before.y, next.y, t) });
    }
    this.#lead(players.find(({ id }) => id === myId), at);
    const worms = b.worms.map((worm, i) => {
      const before = a.worms[i];
      const still = !before || jumped(before, worm);
      return still ? worm : { ...worm, x: lerp(before.x, worm.x, t), y: lerp(before.y, worm.y, t) };
    });
    return { ...b, players, worms, spice: this.spice };
  }

  // One's own runner is drawn where the newest state puts it by now, not where it was 85 ms ago:
  // that lag is what a player would feel.
  #lead(me, at) {
    const newest = me && this.latest.players.get(me.id);
    if (!newest || newest.status !== STATUS.running || this.latest.phase !== 'play') return;
    const ahead = Math.min(0.12, Math.max(0, at - this.offset - this.latest.time));
    const [width, height] = this.hello.arena;
    me.x = Math.min(width - 20, Math.max(20, newest.x + newest.vx * ahead));
    me.y = Math.min(height - 20, Math.max(20, newest.y + newest.vy * ahead));
    me.flags = newest.flags;
  }
}
