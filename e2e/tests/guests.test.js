// Strangers: the server mints their names, and nobody plays under another's.

import assert from 'node:assert/strict';
import { stage } from '../lib/stage.js';
import { until } from '../lib/until.js';

const AUDIENCE = 30;

const scene = stage({
  fleets: { spice: 'warm = 1\nreconnect_grace = "10s"', patient: 'reconnect_grace = "5m"' },
  server: 'guest_starts_per_minute = 100', // all of these come from one address
  flags: ['--host', '127.0.0.1', '--guests'],
});

scene('a guest is given a name and plays; a made-up name counts for nothing', async ({ up, open }) => {
  const refused = await fetch(`${up.url}/api/new-game`, { method: 'POST', body: JSON.stringify({ playerId: 'user123' }) });
  assert.equal(refused.status, 401);
  const tab = await open();
  tab.allow(/status of 401/); // its first wish is under a name of its own making
  const own = await tab.page.evaluate(() => JSON.parse(sessionStorage.getItem('spawnpoint.identity')).playerId);
  const state = await tab.play();
  assert.match(state.playerId, /^guest-[0-9a-f]{32}$/);
  assert.notEqual(state.playerId, own);
  const session = await up.session(state.sessionId);
  assert.equal(session.owner, state.playerId);
  assert.deepEqual(session.players.map(({ player_id }) => player_id), [state.playerId]);
  await tab.receives();
  await until('heartbeats are taken', () => up.why(state.sessionId), { accept: ({ client_claims: claims }) => claims[0]?.player_id === state.playerId });

  const peek = await fetch(`${up.url}/api/sessions/${state.sessionId}`);
  assert.equal(peek.status, 401, 'a stranger sees nothing of it');

  await tab.page.reload();
  await tab.loaded();
  const again = await tab.play();
  assert.deepEqual([again.sessionId, again.playerId], [state.sessionId, state.playerId], 'its token brings a guest back');
});

scene('a guest joins a guest by the share link', async ({ up, open }) => {
  const a = await open();
  a.allow(/status of 401/);
  const host = await a.play();
  const b = await open(await a.page.inputValue('#share-link'));
  b.allow(/status of 401/);
  const friend = await b.play();
  assert.equal(friend.sessionId, host.sessionId);
  assert.match(friend.playerId, /^guest-[0-9a-f]{32}$/);
  assert.notEqual(friend.playerId, host.playerId);
  await a.until('the host sees the friend', ({ players }) => players[friend.me.id] !== undefined);
  assert.equal((await up.sessions()).length, 1);
});

scene('thirty browsers open one address: thirty games, no two players alike', async ({ up, open, profile }) => {
  const states = [];
  for (let i = 0; i < AUDIENCE; i += 1) {
    const context = await profile({ viewport: { width: 320, height: 200 } });
    const tab = await open('/play?fleet=patient', { context });
    tab.allow(/status of 401/);
    states.push(await tab.play());
    // Its game waits for it; thirty pictures at once are too much for a machine without a graphics card.
    await context.close();
  }
  assert.equal(new Set(states.map(({ playerId }) => playerId)).size, AUDIENCE);
  const sessions = await up.sessions();
  assert.deepEqual(sessions.map(({ session_id }) => session_id).sort(), states.map(({ sessionId }) => sessionId).sort());
  assert.deepEqual(sessions.map(({ phase }) => phase), Array(AUDIENCE).fill('running'));
  const games = await Promise.all(states.map(({ sessionId }) => up.gameOf(sessionId)));
  assert.equal(new Set(games.map(({ pid }) => pid)).size, AUDIENCE);
}, { timeout: 120_000 });
