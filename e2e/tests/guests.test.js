// Strangers: the server mints their names, and nobody plays under another's.

import assert from 'node:assert/strict';
import { stage } from '../lib/stage.js';
import { until } from '../lib/until.js';

const scene = stage({ fleets: { spice: 'warm = 1\nreconnect_grace = "10s"' }, flags: ['--host', '127.0.0.1', '--guests'] });

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
