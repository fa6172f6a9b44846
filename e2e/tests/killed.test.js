// kill -9 of the browser, alone and together with everything else: whoever is back within the grace is in the same game. (That a
// session nobody comes back to ends as empty, with one record, is in endings.test.js.)

import assert from 'node:assert/strict';
import { after } from 'node:test';
import { launchKillable, Tab } from '../lib/browser.js';
import { isAlive, processesWith } from '../lib/processes.js';
import { stage } from '../lib/stage.js';
import { until } from '../lib/until.js';

const scene = stage({ fleets: { spice: 'warm = 1\nreconnect_grace = "60s"' } });

// A browser that a failed test leaves would keep this process from ending.
const browsers = [];
after(() => {
  for (const pid of browsers) if (isAlive(pid)) process.kill(pid, 'SIGKILL');
});

async function browser() {
  const launched = await launchKillable();
  browsers.push(launched.pid);
  return launched;
}

/** A game in a browser that can be killed, and what a browser keeps of a tab to restore it. */
async function played(up) {
  const { browser: chromium, pid } = await browser();
  const tab = await Tab.open(await chromium.newContext(), `${up.url}/play`);
  const state = await tab.play();
  const kept = await tab.page.evaluate(() => ({ url: location.href, storage: { ...sessionStorage } }));
  return { pid, state, kept };
}

/** Another browser, with the tab restored: its address and its sessionStorage, as after a crash. */
async function restored({ kept }) {
  const { browser: chromium, pid } = await browser();
  const context = await chromium.newContext();
  await context.addInitScript((storage) => {
    for (const [name, value] of Object.entries(storage)) if (sessionStorage.getItem(name) === null) sessionStorage.setItem(name, value);
  }, kept.storage);
  const tab = await Tab.open(context, kept.url);
  return { pid, tab, state: await tab.play() };
}

async function gone(pid) {
  process.kill(pid, 'SIGKILL');
  await until('the browser is dead', () => isAlive(pid), { accept: (alive) => !alive });
}

scene('kill -9 of the browser: another one is back in the same game on the same process', async ({ up }) => {
  const before = await played(up);
  const game = await up.gameOf(before.state.sessionId);
  await gone(before.pid);
  await until('nobody is connected', () => up.session(before.state.sessionId), {
    accept: ({ players }) => players.every(({ connected }) => connected !== true),
  });
  const after = await restored(before);
  assert.equal(after.state.sessionId, before.state.sessionId);
  assert.equal(after.state.playerId, before.state.playerId);
  await after.tab.receives();
  assert.equal((await up.gameOf(before.state.sessionId)).pid, game.pid);
  assert.equal((await up.records()).filter(({ session_id: id }) => id === before.state.sessionId).length, 0);
  await gone(after.pid);
});

scene('kill -9 of everything, the browser too: the same session on another process', async ({ up }) => {
  const before = await played(up);
  const game = await up.gameOf(before.state.sessionId);
  process.kill(before.pid, 'SIGKILL');
  await up.kill();
  for (const { pid } of processesWith(up.stateDir)) {
    try { process.kill(pid, 'SIGKILL'); } catch { /* its parent took it along */ }
  }
  await until('everything is dead', () => processesWith(up.stateDir), { accept: (left) => left.length === 0 });
  await up.start();
  const session = await until('it was replaced', () => up.session(before.state.sessionId), {
    accept: ({ generation, instance }) => generation === 2 && instance !== null, hopeless: ({ phase }) => phase === 'ended', within: 20_000,
  });
  assert.notEqual(session.instance.id, game.instance);
  const after = await restored(before);
  assert.equal(after.state.sessionId, before.state.sessionId);
  assert.equal(after.state.playerId, before.state.playerId);
  await after.tab.receives();
  assert.equal((await up.records()).filter(({ session_id: id }) => id === before.state.sessionId).length, 0);
  await gone(after.pid);
});
