// A real headless Chromium, and one tab of the game in it.

import { existsSync, mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { until } from './until.js';

export const OUT = join(dirname(fileURLToPath(import.meta.url)), '../out');
const CANDIDATES = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
// Small windows: there may be two cores for ten of them, and no graphics card.
export const SMALL = { width: 640, height: 420 };

function executable() {
  const path = process.env.CHROMIUM ?? CANDIDATES.find((candidate) => existsSync(candidate));
  if (!path) throw new Error('no Chromium: install it (Debian, Ubuntu: apt-get install chromium), or set CHROMIUM to one');
  return path;
}

const asRoot = process.getuid?.() === 0 ? ['--no-sandbox'] : [];
export const launchOptions = () => ({
  executablePath: executable(),
  headless: true,
  // Nothing may leave the machine, and nothing of a graphics card is expected.
  args: [...asRoot, '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update',
    '--disable-sync', '--no-proxy-server', '--mute-audio'],
  // Playwright turns the throttling of hidden tabs off; players' browsers do not.
  ignoreDefaultArgs: ['--disable-background-timer-throttling', '--disable-renderer-backgrounding', '--disable-backgrounding-occluded-windows'],
});

/** A browser with a profile of its own. */
export function launch() {
  return chromium.launch(launchOptions());
}

/** A browser whose main process can be killed. */
export async function launchKillable() {
  const server = await chromium.launchServer(launchOptions());
  return { browser: await chromium.connect(server.wsEndpoint()), pid: server.process().pid };
}

/** A tab with the page. Everything that goes wrong in it is a fault; `assertClean` names them. */
export class Tab {
  faults = [];
  heartbeats = []; // bodies, with `at` and `type` beside them
  spice = []; // {x, y} of every grain in the arena
  worms = []; // {mood, x, y}
  requests = []; // API calls: "POST /api/new-game"
  #allowed = [];

  constructor(page) {
    this.page = page;
    page.on('pageerror', (error) => this.faults.push(`uncaught: ${error.stack ?? error}`));
    page.on('crash', () => this.faults.push('the page crashed'));
    page.on('console', (message) => {
      if (message.type() === 'error') this.faults.push(`console: ${message.text()} ${message.location().url}`);
    });
    // The game's own frames, for whoever must find spice: the page tells its tests only of players.
    page.on('websocket', (socket) => socket.on('framereceived', ({ payload }) => {
      if (typeof payload !== 'string' || !payload.startsWith('{"t":"s"')) return;
      const { sp, w } = JSON.parse(payload);
      this.worms = w.map(([mood, x, y]) => ({ mood, x, y }));
      if (sp) this.spice = Array.from({ length: sp.length / 4 }, (_, i) => ({ x: sp[4 * i + 1], y: sp[4 * i + 2] }));
    }));
    page.on('request', (request) => {
      const { pathname } = new URL(request.url());
      if (!pathname.startsWith('/api/')) return;
      this.requests.push(`${request.method()} ${pathname}`);
      if (!pathname.endsWith('/heartbeat')) return;
      this.heartbeats.push({ at: Date.now(), type: request.resourceType(), path: pathname, body: JSON.parse(request.postData()) });
    });
  }

  static async open(context, url) {
    const tab = new Tab(await context.newPage());
    await tab.page.addInitScript(() => {
      addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI }) => {
        console.error(`content security policy: ${violatedDirective} ${blockedURI}`);
      });
    });
    await tab.page.goto(url);
    await tab.loaded();
    return tab;
  }

  loaded() {
    return until('the page has loaded', () => this.page.evaluate(() => Boolean(window.__spawnpoint)));
  }

  /** Faults that a test causes on purpose (a killed server refuses connections). */
  allow(...patterns) { this.#allowed.push(...patterns); }

  assertClean() {
    const bad = this.faults.filter((fault) => !this.#allowed.some((known) => known.test(fault)));
    if (bad.length > 0) throw new Error(`faults in the page:\n${bad.join('\n')}`);
  }

  /** What the page says of itself. */
  state() { return this.page.evaluate(() => JSON.parse(JSON.stringify(window.__spawnpoint))); }

  until(what, accept, options = {}) {
    return until(what, () => this.state(), { accept, ...options });
  }

  /** Space, and in the game. */
  async play() {
    await this.page.keyboard.press('Space');
    return this.playing();
  }

  /** "Find match", and in line. */
  async findMatch() {
    await this.page.click('#find-match');
    return this.inLine();
  }

  inLine() {
    return this.until('a ticket waits', ({ screen, ticketId, position }) => screen === 'waiting' && ticketId !== null && position !== null,
      { hopeless: ({ screen }) => screen === 'error' });
  }

  /** From now on: which screens it shows, in order, also those too short to be asked for. */
  async noteScreens() {
    await this.page.evaluate(() => {
      window.screens = [];
      new MutationObserver(() => window.screens.push(document.body.dataset.screen)).observe(document.body, { attributeFilter: ['data-screen'] });
    });
  }

  screens() { return this.page.evaluate(() => window.screens); }

  playing({ within = 15_000 } = {}) {
    return this.until('the game is being played', ({ screen, framesReceived }) => screen === 'playing' && framesReceived > 0,
      { hopeless: ({ screen }) => screen === 'error', within });
  }

  /** Frames of the game keep arriving. */
  async receives() {
    const before = await this.state();
    return this.until('more frames arrive', ({ framesReceived }) => framesReceived >= before.framesReceived + 10);
  }

  /** Holds `key` until `accept` takes the state of the page; lets go of it also when that fails. */
  async holding(key, what, accept) {
    await this.page.keyboard.down(key);
    try {
      return await this.until(what, accept);
    } finally {
      await this.page.keyboard.up(key);
    }
  }

  /** Runs over grain after grain with the arrow keys until `accept` takes the state. `detour` makes a grain less worth it. */
  async collect(what, accept, { within = 30_000, detour = () => 0 } = {}) {
    const held = new Set();
    const hold = async (key, down) => {
      if (down === held.has(key)) return;
      await this.page.keyboard[down ? 'down' : 'up'](key);
      if (down) held.add(key);
      else held.delete(key);
    };
    const NEAR = 8; // closer than this on one axis needs no key
    try {
      return await until(what, async () => {
        const state = await this.state();
        const cost = (grain) => Math.hypot(grain.x - state.me.x, grain.y - state.me.y) + detour(grain);
        const target = this.spice.reduce((best, grain) => (!best || cost(grain) < cost(best) ? grain : best), null);
        if (target) {
          await hold('ArrowLeft', target.x < state.me.x - NEAR);
          await hold('ArrowRight', target.x > state.me.x + NEAR);
          await hold('ArrowUp', target.y < state.me.y - NEAR);
          await hold('ArrowDown', target.y > state.me.y + NEAR);
        }
        return state;
      }, { accept, hopeless: ({ screen }) => screen === 'error', within });
    } finally {
      for (const key of [...held]) await hold(key, false);
    }
  }

  text(selector) { return this.page.locator(selector).innerText(); }

  isShown(selector) { return this.page.locator(selector).isVisible(); }

  async picture(name) {
    mkdirSync(OUT, { recursive: true });
    await this.page.screenshot({ path: join(OUT, `${name}.png`) });
  }
}
