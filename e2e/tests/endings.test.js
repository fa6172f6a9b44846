// How a game ends, and that the page and the record tell the same reason.

import assert from 'node:assert/strict';
import { launchKillable, Tab } from '../lib/browser.js';
import { stage } from '../lib/stage.js';
import { until } from '../lib/until.js';

const scene = stage({
  fleets: {
    spice: 'warm = 1',
    brief: 'reconnect_grace = "2s"',
    sleepy: 'idle_timeout = "12s"\nwarnings = ["8s"]',
    timed: 'max_duration = "12s"\nmax_duration_limit = "12s"\nwarnings = ["6s"]',
    longer: 'max_duration = "14s"\nmax_duration_limit = "1h"\nidle_timeout = "40s"\nwarnings = ["10s"]',
  },
});

/** One record with this reason, no session and no process of it. */
async function assertEnded(up, { sessionId }, game, reason, within) {
  const record = await up.ended(sessionId, { within });
  assert.equal(record.reason, reason);
  await until('its process is gone', () => up.games().some(({ pid }) => pid === game.pid), { accept: (there) => !there });
  return record;
}

scene('a closed tab ends its session after the reconnect grace', async ({ up, open }) => {
  const tab = await open('/play?fleet=brief');
  const state = await tab.play();
  const game = await up.gameOf(state.sessionId);
  await tab.page.close({ runBeforeUnload: true });
  const record = await assertEnded(up, state, game, 'empty');
  assert.equal(record.ended_by, 'system');
  assert.equal(record.exit_code, 0);
  assert.deepEqual(record.players.map(({ player_id }) => player_id), [state.playerId]);
});

scene('a browser killed with -9 ends its session too', async ({ up }) => {
  const { browser, pid } = await launchKillable();
  const tab = await Tab.open(await browser.newContext(), `${up.url}/play?fleet=brief`);
  const state = await tab.play();
  const game = await up.gameOf(state.sessionId);
  process.kill(pid, 'SIGKILL');
  await assertEnded(up, state, game, 'empty', 20_000);
});

scene('an idle player is warned, may keep playing, and is put to sleep otherwise', async ({ up, open }) => {
  const tab = await open('/play?fleet=sleepy');
  const state = await tab.play();
  const game = await up.gameOf(state.sessionId);
  const warned = () => until('the warning shows', () => tab.isShown('#warning'), { within: 14_000 });
  await warned();
  assert.match(await tab.text('#warning-text'), /ends in \d+ s if nobody plays/);
  const before = await up.session(state.sessionId);
  assert.equal(before.cull_reason, 'idle');
  await tab.picture('cull-warning');
  await tab.page.click('#keep-playing');
  await until('the deadline moved', () => up.session(state.sessionId), {
    accept: ({ cull_at }) => Date.parse(cull_at) > Date.parse(before.cull_at),
  });
  await until('the warning is gone', () => tab.isShown('#warning'), { accept: (shown) => !shown });
  await tab.receives();

  await warned();
  await tab.until('nobody played', ({ screen }) => screen === 'error', { within: 16_000 });
  assert.equal((await tab.state()).closed.code, 4408);
  assert.equal(await tab.text('#error-title'), 'Fell asleep');
  await tab.picture('ended-idle');
  const record = await assertEnded(up, state, game, 'idle');
  assert.ok(Date.parse(record.ended_at) >= Date.parse(before.cull_at));
  await tab.page.keyboard.press('Space');
  const next = await tab.playing();
  assert.notEqual(next.sessionId, state.sessionId, 'Space on that screen starts a new game');
});

scene('the longest duration ends an active game, with a warning before', async ({ up, open }) => {
  const tab = await open('/play?fleet=timed');
  const state = await tab.play();
  const game = await up.gameOf(state.sessionId);
  const { started_at: startedAt } = await up.session(state.sessionId);
  await until('the warning shows', async () => {
    await tab.page.keyboard.press('ArrowLeft', { delay: 50 });
    return tab.isShown('#warning');
  }, { within: 14_000 });
  assert.match(await tab.text('#warning-text'), /longest duration in \d+ s/);
  await tab.until('the time is up', ({ screen }) => screen === 'error', { within: 14_000 });
  assert.equal((await tab.state()).closed.code, 4410);
  assert.equal(await tab.text('#error-title'), 'Time is up');
  await tab.picture('ended-max-duration');
  const record = await assertEnded(up, state, game, 'max_duration');
  const lasted = Date.parse(record.ended_at) - Date.parse(startedAt);
  assert.ok(lasted >= 11_500, `never early, but it lasted ${lasted} ms`);
});

scene('"Keep playing" makes a game longer where its fleet lets it', async ({ up, open }) => {
  const tab = await open('/play?fleet=longer');
  const state = await tab.play();
  await until('the warning shows', () => tab.isShown('#warning'), { within: 14_000 });
  const before = await up.session(state.sessionId);
  assert.equal(before.cull_reason, 'max_duration');
  await tab.page.click('#keep-playing');
  await until('it was extended', () => up.session(state.sessionId), { accept: ({ extends: times }) => times === 1 });
  await until('past its first deadline', () => Date.now() > Date.parse(before.cull_at) + 500, { within: 15_000 });
  await tab.receives();
  assert.equal((await up.session(state.sessionId)).phase, 'running');
  assert.equal(await tab.isShown('#warning'), false);
});

scene('a game ended by its operator says so', async ({ up, open }) => {
  const tab = await open();
  const state = await tab.play();
  const game = await up.gameOf(state.sessionId);
  await fetch(`${up.admin}/api/sessions/${state.sessionId}`, { method: 'DELETE' });
  await tab.until('the page knows', ({ screen }) => screen === 'error');
  assert.equal(await tab.text('#error-title'), 'Game ended');
  assert.equal((await tab.state()).closed.code, 4411);
  const record = await assertEnded(up, state, game, 'ended_by_client');
  assert.equal(record.ended_by, 'operator');
});

scene('a game server that finishes ends its session as over', async ({ up, open }) => {
  const tab = await open();
  const state = await tab.play();
  const game = await up.gameOf(state.sessionId);
  process.kill(game.pid, 'SIGTERM'); // the bundled game takes it for closing time and exits with 0
  await tab.until('the page knows', ({ screen }) => screen === 'error');
  assert.equal((await tab.state()).closed.code, 1000);
  assert.equal(await tab.text('#error-title'), 'Game over');
  const record = await assertEnded(up, state, game, 'ended_by_server');
  assert.equal(record.exit_code, 0);
});
