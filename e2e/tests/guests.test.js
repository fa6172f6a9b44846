// Strangers: the server mints their names, and nobody plays under another's.

import assert from 'node:assert/strict';
import { stage } from '../lib/stage.js';
import { until } from '../lib/until.js';

const AUDIENCE = 30;

const scene = stage({
  queues: { spice: 'session_size = 2\nflush_wait = "5m"' },
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

scene('guests find each other by the queue, and nobody else leaves it for them', async ({ up, open }) => {
  const a = await open();
  a.allow(/status of 401/);
  const { ticketId } = await a.findMatch();
  const { playerId, bearer } = await a.page.evaluate(() => JSON.parse(sessionStorage.getItem('spawnpoint.identity')));
  assert.match(playerId, /^guest-[0-9a-f]{32}$/);
  for (const headers of [{}, { Authorization: 'Bearer nonsense' }]) {
    const body = JSON.stringify({ player_id: playerId });
    const left = await fetch(`${up.url}/api/match/join`, { method: 'DELETE', headers, body });
    assert.ok([401, 403].includes(left.status), `a stranger leaves for somebody: ${left.status}`);
    const peek = await fetch(`${up.url}/api/match/status?player_id=${playerId}`, { headers });
    assert.ok([401, 403].includes(peek.status), `a stranger asks after somebody: ${peek.status}`);
  }
  const session = await fetch(`${up.url}/api/sessions`, { headers: { Authorization: `Bearer ${bearer}` } });
  assert.deepEqual((await session.json()).sessions ?? [], [], 'a ticket opens no game');
  await a.page.reload();
  await a.loaded();
  assert.equal((await a.inLine()).ticketId, ticketId, 'its token brings a guest back to the line');
  const b = await open();
  b.allow(/status of 401/);
  await b.page.click('#find-match');
  const states = await Promise.all([a.playing(), b.playing()]);
  assert.equal(states[0].sessionId, states[1].sessionId);
  assert.equal(states[0].playerId, playerId);
  assert.match(states[1].playerId, /^guest-[0-9a-f]{32}$/);
  await a.receives();
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
