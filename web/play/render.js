// Draws the arena: night desert, glowing spice, runners, and what moves below the sand.

import { FLAG, STATUS } from '/play/view.js';

export const HUES = ['#ff6b5e', '#5fd4ff', '#b6f05a', '#d58bff', '#ffd84d', '#ff8ac4', '#58e6b0', '#ff9d3d',
  '#8fa8ff', '#e8f3ff', '#f2a3a3', '#38c6c6', '#c8d96f', '#b08cff', '#ffbf80', '#7ce0ff'];
const TILE = 512;
const TAU = Math.PI * 2;
const MAX_PARTICLES = 320;
const MOOD = { roam: 0, hunt: 1, windup: 2, breach: 3, dive: 4 };
const BREACH_TICKS = 14;

/** Deterministic little noise so that the desert looks the same on every visit. */
function noiseTable(size, seed) {
  let state = seed;
  const table = new Float32Array(size * size);
  for (let i = 0; i < table.length; i += 1) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    table[i] = state / 2 ** 32;
  }
  return table;
}

function tiledNoise(table, size, x, y) {
  const xi = Math.floor(x), yi = Math.floor(y);
  const fx = x - xi, fy = y - yi;
  const sx = fx * fx * (3 - 2 * fx), sy = fy * fy * (3 - 2 * fy);
  const at = (i, j) => table[(((j % size) + size) % size) * size + (((i % size) + size) % size)];
  const top = at(xi, yi) + (at(xi + 1, yi) - at(xi, yi)) * sx;
  const low = at(xi, yi + 1) + (at(xi + 1, yi + 1) - at(xi, yi + 1)) * sx;
  return top + (low - top) * sy;
}

function sandTile() {
  const tile = document.createElement('canvas');
  tile.width = TILE;
  tile.height = TILE;
  const context = tile.getContext('2d');
  const image = context.createImageData(TILE, TILE);
  const broad = noiseTable(4, 7), fine = noiseTable(16, 99), grain = noiseTable(TILE, 5);
  for (let y = 0; y < TILE; y += 1) {
    for (let x = 0; x < TILE; x += 1) {
      const u = x / TILE, v = y / TILE;
      const dune = tiledNoise(broad, 4, u * 4, v * 4);
      const warp = tiledNoise(fine, 16, u * 16, v * 16);
      const ripple = Math.sin(TAU * (v * 16 + u * 4 + warp * 0.9 + dune * 2)) * 0.5 + 0.5;
      const light = dune * 0.55 + ripple * ripple * 0.2 + warp * 0.12 + grain[y * TILE + x] * 0.08;
      const i = (y * TILE + x) * 4;
      image.data[i] = 44 + light * 88;
      image.data[i + 1] = 28 + light * 54;
      image.data[i + 2] = 58 + light * 44;
      image.data[i + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
  return tile;
}

function glow(radius, stops) {
  const sprite = document.createElement('canvas');
  sprite.width = radius * 2;
  sprite.height = radius * 2;
  const context = sprite.getContext('2d');
  const gradient = context.createRadialGradient(radius, radius, 0, radius, radius, radius);
  for (const [at, colour] of stops) gradient.addColorStop(at, colour);
  context.fillStyle = gradient;
  context.fillRect(0, 0, radius * 2, radius * 2);
  return sprite;
}

export class Renderer {
  #canvas;
  #context;
  #sand = sandTile();
  #glowSpice = glow(40, [[0, 'rgba(255,205,120,.95)'], [0.25, 'rgba(255,150,60,.55)'], [1, 'rgba(255,110,30,0)']]);
  #glowRich = glow(80, [[0, 'rgba(255,240,190,1)'], [0.2, 'rgba(255,180,80,.65)'], [1, 'rgba(255,90,40,0)']]);
  #glowDust = glow(32, [[0, 'rgba(235,190,150,.5)'], [1, 'rgba(200,150,120,0)']]);
  #particles = [];
  #labels = [];
  #wakes = new Map(); // worm index -> points
  #trails = new Map(); // avatar id -> points
  #rocks = null;
  #rockShapes = [];
  #shake = 0;
  #last = 0;
  #pattern;

  constructor(canvas) {
    this.#canvas = canvas;
    this.#context = canvas.getContext('2d', { alpha: false });
    this.#pattern = this.#context.createPattern(this.#sand, 'repeat');
    this.camera = { x: 1200, y: 750, zoom: 1, width: 0, height: 0 };
    this.resize();
    window.addEventListener('resize', () => this.resize());
  }

  resize() {
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    this.ratio = ratio;
    this.#canvas.width = Math.round(window.innerWidth * ratio);
    this.#canvas.height = Math.round(window.innerHeight * ratio);
    this.camera.width = window.innerWidth;
    this.camera.height = window.innerHeight;
    // About the same stretch of desert for everybody: nobody sees farther by a bigger screen.
    const area = Math.sqrt((window.innerWidth * window.innerHeight) / (1180 * 740));
    this.camera.zoom = Math.min(2.2, Math.max(0.42, area));
  }

  /** CSS pixels of a place in the arena. */
  toScreen(x, y) {
    const { camera } = this;
    return { x: (x - camera.x) * camera.zoom + camera.width / 2, y: (y - camera.y) * camera.zoom + camera.height / 2 };
  }

  // --- what happened -------------------------------------------------------------------------
  burst(x, y, count, colour, speed, life = 0.6) {
    for (let i = 0; i < count && this.#particles.length < MAX_PARTICLES; i += 1) {
      const angle = Math.random() * TAU, pace = speed * (0.3 + Math.random() * 0.7);
      this.#particles.push({ x, y, vx: Math.cos(angle) * pace, vy: Math.sin(angle) * pace, life, age: 0, colour, size: 2 + Math.random() * 3 });
    }
  }

  dust(x, y, count, speed) { this.burst(x, y, count, 'dust', speed, 1.1); }

  label(x, y, text, colour, size = 20) {
    if (this.#labels.length > 24) this.#labels.shift();
    this.#labels.push({ x, y, text, colour, size, age: 0 });
  }

  quake(x, y, strength) {
    const near = 1 - Math.min(1, Math.hypot(x - this.camera.x, y - this.camera.y) / 1100);
    this.#shake = Math.max(this.#shake, strength * near);
  }

  // --- the picture ---------------------------------------------------------------------------
  draw(scene, hello, names, myId, seconds) {
    const context = this.#context;
    const step = Math.min(0.05, Math.max(0, seconds - this.#last));
    this.#last = seconds;
    const me = scene?.players.find(({ id }) => id === myId);
    this.#follow(me, scene, hello, step, seconds);
    const { camera, ratio } = this;
    const scale = camera.zoom * ratio;
    this.#shake *= Math.exp(-step * 5);
    const shake = matchMedia('(prefers-reduced-motion: reduce)').matches ? 0 : this.#shake;
    const dx = (Math.random() - 0.5) * shake, dy = (Math.random() - 0.5) * shake;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = '#120b1d';
    context.fillRect(0, 0, this.#canvas.width, this.#canvas.height);
    context.setTransform(scale, 0, 0, scale,
      this.#canvas.width / 2 - (camera.x + dx) * scale, this.#canvas.height / 2 - (camera.y + dy) * scale);
    const [width, height] = hello?.arena ?? [2400, 1500];
    context.fillStyle = this.#pattern;
    context.fillRect(0, 0, width, height);
    this.#border(width, height, seconds);
    this.#drawRocks(hello?.rocks ?? []);
    if (scene) {
      this.#drawWormsBelow(scene.worms, seconds);
      this.#drawBlow(scene.blow, seconds);
      this.#drawThumpers(scene.thumpers, seconds);
      this.#drawSpice(scene.spice, seconds);
      for (const player of scene.players) this.#drawPlayer(player, names, myId, seconds, step);
      this.#drawJaws(scene.worms, seconds);
    }
    this.#drawParticles(step);
    this.#drawLabels(step);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.#vignette(me);
    if (scene && me?.status === STATUS.running) this.#arrows(scene, names, myId);
  }

  #follow(me, scene, hello, step, seconds) {
    const { camera } = this;
    const [width, height] = hello?.arena ?? [2400, 1500];
    const visible = me && me.status !== STATUS.waiting;
    const to = visible ? me : { x: width / 2 + Math.cos(seconds * 0.11) * width * 0.2, y: height / 2 + Math.sin(seconds * 0.17) * height * 0.16 };
    const ease = Math.hypot(to.x - camera.x, to.y - camera.y) > 900 ? 1 : 1 - Math.exp(-step * (visible ? 9 : 1.5));
    camera.x += (to.x - camera.x) * ease;
    camera.y += (to.y - camera.y) * ease;
    // The edge of the world may be seen, but only a strip of what lies beyond.
    const limit = (size, half, at) => (half * 2 >= size + 120 ? size / 2 : Math.min(size + 60 - half, Math.max(half - 60, at)));
    camera.x = limit(width, camera.width / 2 / camera.zoom, camera.x);
    camera.y = limit(height, camera.height / 2 / camera.zoom, camera.y);
  }

  #border(width, height, seconds) {
    const context = this.#context;
    context.save();
    context.strokeStyle = 'rgba(255,150,80,.55)';
    context.lineWidth = 5;
    context.setLineDash([26, 16]);
    context.lineDashOffset = -seconds * 30;
    context.strokeRect(0, 0, width, height);
    context.setLineDash([]);
    context.strokeStyle = 'rgba(255,120,60,.12)';
    context.lineWidth = 46;
    context.strokeRect(0, 0, width, height);
    context.restore();
  }

  #drawRocks(rocks) {
    const context = this.#context;
    if (this.#rocks !== rocks) {
      this.#rocks = rocks;
      this.#rockShapes = rocks.map(([x, y, radius], index) => {
        const table = noiseTable(4, index * 31 + 17);
        const points = Array.from({ length: 22 }, (_, i) => {
          const angle = (i / 22) * TAU;
          const reach = radius * (0.96 + 0.14 * (table[i % 16] - 0.4));
          return [Math.cos(angle) * reach, Math.sin(angle) * reach];
        });
        return { x, y, radius, points };
      });
    }
    for (const { x, y, radius, points } of this.#rockShapes) {
      const shape = (grow, ox, oy) => {
        context.beginPath();
        for (const [px, py] of points) context.lineTo(x + px * grow + ox, y + py * grow + oy);
        context.closePath();
      };
      shape(1.03, 14, 20);
      context.fillStyle = 'rgba(8,3,16,.45)';
      context.fill();
      shape(1, 0, 0);
      const gradient = context.createLinearGradient(x - radius, y - radius, x + radius, y + radius);
      gradient.addColorStop(0, '#8f6f86');
      gradient.addColorStop(0.5, '#5a4566');
      gradient.addColorStop(1, '#33274a');
      context.fillStyle = gradient;
      context.fill();
      context.lineWidth = 4;
      context.strokeStyle = 'rgba(255,210,180,.25)';
      context.stroke();
      shape(0.7, -radius * 0.06, -radius * 0.08);
      context.fillStyle = 'rgba(255,225,210,.10)';
      context.fill();
      shape(0.4, -radius * 0.1, -radius * 0.14);
      context.fill();
    }
  }

  // A worm leaves a wake of raised sand; how plain it is depends on how deep it swims.
  #drawWormsBelow(worms, seconds) {
    const context = this.#context;
    worms.forEach((worm, index) => {
      const wake = this.#wakes.get(index) ?? [];
      this.#wakes.set(index, wake);
      const tip = wake[wake.length - 1];
      if (tip && Math.hypot(tip.x - worm.x, tip.y - worm.y) > 220) wake.length = 0;
      if (!tip || Math.hypot(tip.x - worm.x, tip.y - worm.y) > 13) wake.push({ x: worm.x, y: worm.y });
      if (wake.length > 22) wake.shift();
      if (worm.mood === MOOD.breach) wake.length = 0;
      const plain = { [MOOD.roam]: 0.38, [MOOD.hunt]: 0.95, [MOOD.windup]: 1, [MOOD.breach]: 0, [MOOD.dive]: 0.12 }[worm.mood];
      wake.forEach((point, i) => {
        const age = i / wake.length;
        const size = 15 + 24 * age;
        context.globalAlpha = plain * age;
        context.fillStyle = 'rgba(14,6,24,.5)';
        context.beginPath();
        context.ellipse(point.x + 7, point.y + 9, size, size * 0.8, 0, 0, TAU);
        context.fill();
        context.fillStyle = i % 2 ? '#a27a78' : '#7f5d6c';
        context.beginPath();
        context.ellipse(point.x, point.y, size * 0.9, size * 0.7, 0, 0, TAU);
        context.fill();
      });
      context.globalAlpha = 1;
      if (worm.mood === MOOD.hunt && Math.random() < 0.5) this.dust(worm.x, worm.y, 1, 60);
      if (worm.mood === MOOD.windup) this.#tremor(worm, seconds);
    });
    for (const index of this.#wakes.keys()) if (index >= worms.length) this.#wakes.delete(index);
  }

  #tremor({ x, y, left }, seconds) {
    const context = this.#context;
    const grown = 1 - left / 19;
    context.save();
    context.translate(x, y);
    context.fillStyle = `rgba(20,4,10,${0.25 + grown * 0.4})`;
    context.beginPath();
    context.arc(0, 0, 84 * (0.4 + grown * 0.6), 0, TAU);
    context.fill();
    context.strokeStyle = `rgba(255,80,60,${0.5 + 0.5 * Math.sin(seconds * 40)})`;
    context.lineWidth = 6;
    context.setLineDash([22, 14]);
    context.lineDashOffset = seconds * 160;
    context.beginPath();
    context.arc(0, 0, 84, 0, TAU);
    context.stroke();
    context.restore();
    if (Math.random() < 0.8) this.dust(x + (Math.random() - 0.5) * 120, y + (Math.random() - 0.5) * 120, 1, 90);
  }

  #drawJaws(worms, seconds) {
    const context = this.#context;
    for (const { mood, x, y, left } of worms) {
      if (mood !== MOOD.breach) continue;
      const t = left / BREACH_TICKS;
      const size = Math.sin(Math.min(1, (1 - t) * 3.2 + 0.25) * Math.PI * 0.5) * (t < 0.25 ? t * 4 : 1);
      context.save();
      context.translate(x, y);
      context.scale(size, size);
      for (const [radius, colour] of [[104, 'rgba(10,3,14,.55)'], [94, '#6d4a3f'], [86, '#94644c'], [77, '#5b3430'], [69, '#3a1620'], [40, '#180610']]) {
        context.fillStyle = colour;
        context.beginPath();
        context.arc(0, 0, radius, 0, TAU);
        context.fill();
      }
      for (const [ring, count, length, turn] of [[78, 26, 26, 0.6], [56, 18, 20, -0.9]]) {
        context.fillStyle = ring > 60 ? '#ffe9c9' : '#dcb794';
        for (let i = 0; i < count; i += 1) {
          context.save();
          context.rotate((i / count) * TAU + seconds * turn);
          context.beginPath();
          context.moveTo(ring, -5);
          context.lineTo(ring - length, 0);
          context.lineTo(ring, 5);
          context.fill();
          context.restore();
        }
      }
      context.restore();
    }
  }

  #drawBlow(blow, seconds) {
    if (!blow) return;
    const context = this.#context;
    const pulse = 0.5 + 0.5 * Math.sin(seconds * 9);
    context.globalCompositeOperation = 'lighter';
    context.globalAlpha = 0.5 + pulse * 0.4;
    context.drawImage(this.#glowRich, blow.x - 150, blow.y - 150, 300, 300);
    context.globalCompositeOperation = 'source-over';
    context.globalAlpha = 1;
    context.strokeStyle = `rgba(255,210,120,${0.4 + pulse * 0.5})`;
    context.lineWidth = 4;
    context.beginPath();
    context.arc(blow.x, blow.y, 40 + (blow.left % 1) * 90, 0, TAU);
    context.stroke();
    if (Math.random() < 0.5) this.burst(blow.x, blow.y, 1, '#ffb347', 120, 0.8);
  }

  #drawThumpers(thumpers, seconds) {
    const context = this.#context;
    for (const { x, y, left } of thumpers) {
      const beat = left > 0 ? Math.max(0, Math.sin(seconds * 11)) : 0;
      if (left > 0) {
        context.strokeStyle = `rgba(111,227,214,${0.7 * (1 - ((seconds * 1.75) % 1))})`;
        context.lineWidth = 5;
        context.beginPath();
        context.arc(x, y, 24 + ((seconds * 1.75) % 1) * 120, 0, TAU);
        context.stroke();
      }
      context.fillStyle = 'rgba(8,3,16,.5)';
      context.beginPath();
      context.ellipse(x + 5, y + 15, 16, 7, 0, 0, TAU);
      context.fill();
      context.fillStyle = '#3d4f63';
      context.fillRect(x - 7, y - 16 + beat * 6, 14, 30);
      context.fillStyle = '#6fe3d6';
      context.fillRect(x - 12, y - 22 + beat * 12, 24, 9);
    }
  }

  #drawSpice(spice, seconds) {
    const context = this.#context;
    context.globalCompositeOperation = 'lighter';
    for (const { id, x, y, rich } of spice) {
      const bob = Math.sin(seconds * 3 + id) * 0.12 + 1;
      const size = (rich ? 74 : 36) * bob;
      context.drawImage(rich ? this.#glowRich : this.#glowSpice, x - size, y - size, size * 2, size * 2);
    }
    context.globalCompositeOperation = 'source-over';
    for (const { id, x, y, rich } of spice) {
      const size = rich ? 17 : 9;
      const turn = 0.5 + 0.5 * Math.abs(Math.sin(seconds * 1.7 + id));
      context.fillStyle = rich ? '#fff3cf' : '#ffdf9e';
      context.beginPath();
      context.moveTo(x, y - size);
      context.lineTo(x + size * 0.7 * turn, y);
      context.lineTo(x, y + size);
      context.lineTo(x - size * 0.7 * turn, y);
      context.fill();
    }
  }

  #drawPlayer(player, names, myId, seconds, step) {
    if (player.status !== STATUS.running) {
      this.#trails.delete(player.id);
      return;
    }
    const context = this.#context;
    const { x, y, vx, vy, flags } = player;
    const who = names.get(player.id) ?? { name: '', hue: 0 };
    const colour = HUES[who.hue % HUES.length];
    const mine = player.id === myId;
    const speed = Math.hypot(vx, vy);
    this.#trail(player, colour, speed, step);
    context.globalAlpha = flags & FLAG.asleep ? 0.45 : 1;
    if (mine && player.noise > 12) {
      context.strokeStyle = `rgba(255,${Math.round(220 - player.noise * 1.6)},90,${0.10 + player.noise / 300})`;
      context.lineWidth = 3;
      for (let ring = 0; ring < 2; ring += 1) {
        const wave = (seconds * 0.9 + ring / 2) % 1;
        context.beginPath();
        context.arc(x, y, 26 + wave * (30 + player.noise * 1.5), 0, TAU);
        context.stroke();
      }
    }
    context.fillStyle = 'rgba(8,3,16,.5)';
    context.beginPath();
    context.ellipse(x + 5, y + 13, 19, 10, 0, 0, TAU);
    context.fill();
    context.save();
    context.translate(x, y);
    if (flags & FLAG.stun) context.rotate(Math.sin(seconds * 30) * 0.5);
    else if (speed > 20) context.rotate(Math.atan2(vy, vx));
    else context.rotate(Math.PI / 2);
    const stretch = 1 + Math.min(0.5, speed / 1500);
    context.scale(stretch, 1 / Math.sqrt(stretch));
    context.fillStyle = colour;
    context.beginPath();
    context.moveTo(20, 0);
    context.bezierCurveTo(18, -20, -10, -22, -24 - Math.sin(seconds * 14) * Math.min(5, speed / 50), -9);
    context.lineTo(-17, 0);
    context.lineTo(-24 + Math.sin(seconds * 14) * Math.min(5, speed / 50), 9);
    context.bezierCurveTo(-10, 22, 18, 20, 20, 0);
    context.fill();
    context.strokeStyle = mine ? '#fff' : 'rgba(20,8,30,.7)';
    context.lineWidth = mine ? 3 : 2;
    context.stroke();
    context.fillStyle = '#241631';
    context.beginPath();
    context.ellipse(6, 0, 9, 11, 0, 0, TAU);
    context.fill();
    context.fillStyle = '#7fd8ff';
    context.beginPath();
    context.arc(9, -4, 2.6, 0, TAU);
    context.arc(9, 4, 2.6, 0, TAU);
    context.fill();
    context.restore();
    if (flags & FLAG.shield) {
      context.strokeStyle = `rgba(111,227,214,${0.5 + 0.4 * Math.sin(seconds * 12)})`;
      context.lineWidth = 4;
      context.beginPath();
      context.arc(x, y, 32, 0, TAU);
      context.stroke();
    }
    if (flags & FLAG.asleep) this.#text('z Z z', x, y - 44, 20, '#cfe');
    else if (flags & FLAG.stun) this.#text('✶ ✶ ✶', x, y - 34, 18, '#ffe27a');
    this.#text(mine ? 'you' : who.name, x, y + 44, 15, mine ? '#fff' : colour);
    context.globalAlpha = 1;
  }

  #trail(player, colour, speed, step) {
    const trail = this.#trails.get(player.id) ?? [];
    this.#trails.set(player.id, trail);
    for (const point of trail) point.age += step;
    while (trail.length > 0 && (trail[0].age > 0.5 || trail.length > 26)) trail.shift();
    trail.push({ x: player.x, y: player.y, age: 0 });
    const context = this.#context;
    const dash = player.flags & FLAG.dash;
    context.lineCap = 'round';
    for (let i = 1; i < trail.length; i += 1) {
      const [a, b] = [trail[i - 1], trail[i]];
      if (Math.hypot(a.x - b.x, a.y - b.y) > 160) continue;
      context.strokeStyle = colour;
      context.globalAlpha = (1 - b.age * 2) * (dash ? 0.75 : 0.28);
      context.lineWidth = (dash ? 22 : 10) * (i / trail.length);
      context.beginPath();
      context.moveTo(a.x, a.y);
      context.lineTo(b.x, b.y);
      context.stroke();
    }
    context.globalAlpha = 1;
    if (speed > 200 && Math.random() < 0.25) this.dust(player.x, player.y + 12, 1, 30);
  }

  #drawParticles(step) {
    const context = this.#context;
    this.#particles = this.#particles.filter((p) => (p.age += step) < p.life);
    for (const p of this.#particles) {
      p.x += p.vx * step;
      p.y += p.vy * step;
      p.vx *= 1 - step * 2.5;
      p.vy *= 1 - step * 2.5;
      context.globalAlpha = 1 - p.age / p.life;
      if (p.colour === 'dust') {
        const size = 10 + p.size * 5 * (p.age / p.life + 0.4);
        context.drawImage(this.#glowDust, p.x - size, p.y - size, size * 2, size * 2);
      } else {
        context.fillStyle = p.colour;
        context.fillRect(p.x - p.size / 2, p.y - p.size / 2, p.size, p.size);
      }
    }
    context.globalAlpha = 1;
  }

  #drawLabels(step) {
    this.#labels = this.#labels.filter((label) => (label.age += step) < 0.9);
    for (const { x, y, text, colour, size, age } of this.#labels) {
      this.#context.globalAlpha = 1 - age / 0.9;
      this.#text(text, x, y - 26 - age * 46, size, colour);
    }
    this.#context.globalAlpha = 1;
  }

  #text(text, x, y, size, colour) {
    const context = this.#context;
    context.font = `700 ${size}px ui-rounded, "Segoe UI", Ubuntu, "DejaVu Sans", sans-serif`;
    context.textAlign = 'center';
    context.textBaseline = 'middle';
    context.lineWidth = 4;
    context.strokeStyle = 'rgba(20,8,30,.75)';
    context.strokeText(text, x, y);
    context.fillStyle = colour;
    context.fillText(text, x, y);
  }

  #vignette(me) {
    const context = this.#context;
    const { width, height } = this.camera;
    const loud = me?.status === STATUS.running ? Math.max(0, me.noise - 45) / 55 : 0;
    const gradient = context.createRadialGradient(width / 2, height / 2, Math.min(width, height) * 0.35, width / 2, height / 2, Math.hypot(width, height) * 0.56);
    gradient.addColorStop(0, 'rgba(10,4,20,0)');
    gradient.addColorStop(1, `rgba(${Math.round(14 + loud * 120)},4,${Math.round(24 - loud * 10)},.72)`);
    context.fillStyle = gradient;
    context.fillRect(0, 0, width, height);
  }

  // Where the others and the next eruption are, when they are out of sight.
  #arrows(scene, names, myId) {
    const marks = scene.players
      .filter(({ id, status }) => id !== myId && status === STATUS.running)
      .map(({ id, x, y }) => ({ x, y, colour: HUES[(names.get(id)?.hue ?? 0) % HUES.length] }));
    if (scene.blow) marks.push({ ...scene.blow, colour: '#ffd27a', big: true });
    const context = this.#context;
    const { width, height } = this.camera;
    for (const { x, y, colour, big } of marks) {
      const at = this.toScreen(x, y);
      const edge = 30;
      if (at.x > 0 && at.y > 0 && at.x < width && at.y < height) continue;
      const px = Math.min(width - edge, Math.max(edge, at.x)), py = Math.min(height - edge, Math.max(edge, at.y));
      context.save();
      context.translate(px, py);
      context.rotate(Math.atan2(at.y - py, at.x - px));
      context.fillStyle = colour;
      context.globalAlpha = 0.9;
      const size = big ? 18 : 11;
      context.beginPath();
      context.moveTo(size, 0);
      context.lineTo(-size * 0.7, -size * 0.75);
      context.lineTo(-size * 0.3, 0);
      context.lineTo(-size * 0.7, size * 0.75);
      context.fill();
      context.restore();
    }
  }
}
