// What a kill -9 costs: of the game server a round, of Spawnpoint itself a few seconds of waiting.

import assert from 'node:assert/strict';
import { stage } from '../lib/stage.js';
import { until } from '../lib/until.js';

const scene = stage({ fleets: { spice: 'warm = 1', fixed: 'on_crash = "end"' } });

/** Its runner obeys. */
async function steers(tab) {
  const { me } = await tab.state();
  await tab.holding('ArrowLeft', 'the runner runs', (state) => Math.abs(state.me.x - me.x) > 40);
}

scene('kill -9 of the game server: another one takes over under the same URL', async ({ up, open }) => {
  const tab = await open();
  const before = await tab.play();
  assert.equal(before.generation, 1);
  const game = await up.gameOf(before.sessionId);
  process.kill(game.pid, 'SIGKILL');
  const session = await until('it was replaced', () => up.session(before.sessionId), {
    accept: ({ generation, phase }) => generation === 2 && phase === 'running', hopeless: ({ phase }) => phase === 'ended',
  });
  assert.notEqual(session.instance.id, game.instance);
  const after = await tab.until('the page plays again by itself', ({ generation, screen, phase }) =>
    generation === 2 && screen === 'playing' && phase === 'running', { hopeless: ({ screen }) => screen === 'error' });
  assert.equal(after.sessionId, before.sessionId);
  assert.equal(after.playerId, before.playerId);
  assert.ok(after.reconnects >= 1);
  await tab.until('in a running round', ({ arena, me }) => arena === 'play' && me.status === 1);
  await tab.receives();
  await steers(tab);
  assert.equal(await tab.isShown('#reconnect'), false);
  assert.notEqual((await up.gameOf(before.sessionId)).pid, game.pid);
  assert.equal((await up.records()).filter(({ session_id }) => session_id === before.sessionId).length, 0);
});

scene('kill -9 of a game that is not to be replaced ends it as crashed', async ({ up, open }) => {
  const tab = await open('/play?fleet=fixed');
  const { sessionId } = await tab.play();
  process.kill((await up.gameOf(sessionId)).pid, 'SIGKILL');
  await tab.until('the page says so', ({ screen }) => screen === 'error');
  assert.equal(await tab.text('#error-title'), 'Server crashed');
  assert.equal((await tab.state()).closed.code, 4500);
  assert.equal((await up.ended(sessionId)).reason, 'crashed');
});

scene('kill -9 of Spawnpoint: after its restart the page is back in the same game on the same process', async ({ up, open }) => {
  const tab = await open();
  tab.allow(/WebSocket connection to/, /ERR_CONNECTION_REFUSED/, /Failed to load resource: net::/);
  await tab.play();
  const before = await tab.collect('spice was collected', ({ me }) => me.score > 0);
  const game = await up.gameOf(before.sessionId);
  await up.kill();
  await until('the page waits', () => tab.isShown('#reconnect'));
  assert.ok(up.games().some(({ pid }) => pid === game.pid), 'the game goes on meanwhile');
  await tab.picture('reconnecting');
  await up.start();
  const session = await up.session(before.sessionId);
  assert.equal(session.instance.id, game.instance);
  assert.equal(session.generation, 1);
  const after = await tab.until('the page is back', ({ phase, screen }) => phase === 'running' && screen === 'playing',
    { hopeless: ({ screen }) => screen === 'error', within: 20_000 });
  await until('the banner is gone', () => tab.isShown('#reconnect'), { accept: (shown) => !shown });
  assert.equal(after.sessionId, before.sessionId);
  assert.equal(after.playerId, before.playerId);
  assert.equal(after.me.id, before.me.id, 'the seat was kept');
  assert.ok(after.me.score >= before.me.score * 0.9, 'and the score');
  await tab.receives();
  await steers(tab);
  assert.equal((await up.gameOf(before.sessionId)).pid, game.pid);
});
