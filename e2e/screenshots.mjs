// Makes docs/images/play.png: two browser tabs in one game, side by side. Nothing in it is drawn by
// hand: both runners collect spice until there is a moment worth keeping, and the best few are compared.

import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { launch, OUT, Tab } from './lib/browser.js';
import { game, startUp } from './lib/command.js';
import { indexedPng } from './lib/indexed_png.js';

const PICTURE = join(dirname(fileURLToPath(import.meta.url)), '../docs/images/play.png');
const VIEW = { width: 680, height: 520 };
const LARGEST = 400_000; // bytes: it is loaded with the README
const MOMENTS = 8;
const ENOUGH_POINTS = 120;
const SEEN = 330; // units from a runner that are well inside its view

const distance = (a, b) => Math.hypot(a.x - b.x, a.y - b.y);

/**
 * Taking a picture lasts so long that two of them would show two moments. While `window.held`, a page
 * draws nothing new and keeps what its game sends for later.
 */
function holdable() {
  const later = [];
  const draw = window.requestAnimationFrame.bind(window);
  window.requestAnimationFrame = (step) => draw((at) => (window.held ? later.push(() => window.requestAnimationFrame(step)) : step(at)));
  const { set } = Object.getOwnPropertyDescriptor(WebSocket.prototype, 'onmessage');
  Object.defineProperty(WebSocket.prototype, 'onmessage', {
    set(take) { set.call(this, (event) => (window.held ? later.push(() => take(event)) : take(event))); },
  });
  window.hold = () => { window.held = true; };
  window.release = () => {
    window.held = false;
    later.splice(0).forEach((go) => go());
  };
}

/** How lively this moment is in both views; 0 is not worth a picture. */
function worth(tabs, states) {
  const [a, b] = states.map(({ me }) => me);
  const apart = distance(a, b);
  const good = states.every(({ screen, me, latency }) => screen === 'playing' && me.status === 1 && me.score >= ENOUGH_POINTS && latency < 90);
  if (!good || apart < 90 || apart > SEEN * 0.7) return 0;
  const grains = tabs[0].spice.filter((grain) => distance(grain, a) < SEEN && distance(grain, b) < SEEN).length;
  const worm = tabs[0].worms.some((place) => distance(place, a) < SEEN && distance(place, b) < SEEN);
  return grains < 6 ? 0 : grains + (worm ? 12 : 0);
}

async function moments(tabs) {
  let done = false;
  const best = [];
  const watch = async () => {
    while (!done) {
      let states = await Promise.all(tabs.map((tab) => tab.state()));
      if (worth(tabs, states) > 0) {
        await Promise.all(tabs.map((tab) => tab.page.evaluate(() => window.hold())));
        states = await Promise.all(tabs.map((tab) => tab.state()));
        const value = worth(tabs, states);
        const pictures = value > 0 && (await Promise.all(tabs.map((tab) => tab.page.screenshot())));
        await Promise.all(tabs.map((tab) => tab.page.evaluate(() => window.release())));
        if (pictures) {
          best.push({ value, pictures });
          console.log(`a moment worth ${value}: ${states.map(({ me }) => me.score).join(' and ')} points`);
        }
        done = best.length === MOMENTS;
      }
      if (states.some(({ screen }) => screen === 'over')) done = true;
    }
  };
  // Each prefers grains that are also near the other, so that they meet.
  const last = tabs.map(() => ({ x: 1200, y: 750 }));
  const run = (tab, i) => tab.collect('pictures', (state) => {
    last[i] = state.me;
    return done;
  }, { within: 120_000, detour: (grain) => 0.8 * distance(grain, last[1 - i]) });
  await Promise.all([watch(), ...tabs.map(run)]);
  return best.sort((x, y) => y.value - x.value);
}

/** Both tabs on one page, with the frames that a browser would put around them. */
function sideBySide(pictures) {
  const tab = (picture, address) => `<figure><div><i></i><i></i><i></i><b>${address}</b></div>
    <img src="data:image/png;base64,${picture.toString('base64')}"></figure>`;
  return `<!doctype html><style>
    body { margin: 0; padding: 18px; display: flex; gap: 18px; background: #0f0a18; width: max-content; }
    figure { margin: 0; border-radius: 10px; overflow: hidden; border: 1px solid #46355f; }
    div { height: 30px; background: #2a2039; display: flex; align-items: center; gap: 7px; padding: 0 12px; }
    i { width: 11px; height: 11px; border-radius: 50%; background: #54426f; }
    b { font: 500 13px system-ui, sans-serif; color: #cbbfe0; background: #1b1427; border-radius: 9px; padding: 2px 14px; margin-left: 8px; flex: 1; }
    img { display: block; }
  </style>${tab(pictures[0], 'localhost:8080/play')}${tab(pictures[1], 'localhost:8080/play?join=…')}`;
}

const up = await startUp({ fleets: { spice: game({ SPICE_SEED: process.env.SEED ?? '7' }) } });
const browser = await launch();
try {
  const context = await browser.newContext({ viewport: VIEW });
  await context.addInitScript(holdable);
  const host = await Tab.open(context, `${up.url}/play`);
  await host.play();
  const friend = await Tab.open(context, await host.page.inputValue('#share-link'));
  await friend.play();
  const best = await moments([host, friend]);
  if (best.length === 0) throw new Error('no moment was worth a picture: run it again, or with another SEED');
  for (const tab of [host, friend]) tab.assertClean();

  mkdirSync(OUT, { recursive: true });
  mkdirSync(dirname(PICTURE), { recursive: true });
  const page = await browser.newPage({ viewport: { width: 1500, height: 700 } });
  for (const [i, { pictures }] of best.entries()) {
    await page.setContent(sideBySide(pictures));
    await page.locator('body').screenshot({ path: join(OUT, `play-${i + 1}.png`) });
  }
  writeFileSync(PICTURE, await indexedPng(page, readFileSync(join(OUT, 'play-1.png'))));
  const { size } = statSync(PICTURE);
  console.log(`${PICTURE}: ${size} bytes`);
  if (size > LARGEST) throw new Error(`larger than ${LARGEST} bytes`);
} finally {
  await browser.close();
  await up.stop();
}
