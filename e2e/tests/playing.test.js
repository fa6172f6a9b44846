// Opening the page, starting, steering, sharing: what a player does in the first two minutes.

import assert from 'node:assert/strict';
import { stage } from '../lib/stage.js';
import { holds, until } from '../lib/until.js';

const FAR = 40; // units of the arena; a runner stands still to the unit

const scene = stage({ fleets: { spice: 'warm = 2\njoinable = "invite"' } });

scene('the page starts nothing before Space', async ({ up, open }) => {
  const tab = await open();
  assert.match(await tab.text('#play'), /Space/);
  const quiet = () => !tab.requests.some((request) => request.startsWith('POST')) && tab.heartbeats.length === 0;
  await holds('no game is asked for and no heartbeat sent', quiet, { ms: 1500 });
  assert.deepEqual(await up.sessions(), []);
  assert.equal((await up.fleet('spice')).claimed, 0);
  assert.equal((await tab.state()).screen, 'title');
  await tab.picture('title');
});

scene('Space starts a game on a server process of its own, and the score counts', async ({ up, open }) => {
  const tab = await open();
  const { sessionId, playerId } = await tab.play();
  const [session, ...others] = await up.sessions();
  assert.deepEqual(others, []);
  assert.equal(session.session_id, sessionId);
  assert.deepEqual(session.players.map(({ player_id }) => player_id), [playerId]);
  await until('the session is running', () => up.session(sessionId), { accept: ({ phase }) => phase === 'running' });
  const game = await up.gameOf(sessionId);
  assert.equal((await up.fleet('spice')).claimed, 1);
  assert.equal(new Set(up.games().map(({ instance }) => instance)).size, up.games().length, 'one process an instance');
  const { me } = await tab.collect('spice was collected', (state) => state.me.score > 0);
  await until('the score is shown', () => tab.text('#score'), { accept: (shown) => Number(shown.replaceAll(',', '')) >= me.score });
  await tab.picture('playing');
  assert.equal((await up.gameOf(sessionId)).pid, game.pid);
});

scene('Space, click and double click at once are one wish; a reload finds the game again', async ({ up, open }) => {
  const tab = await open();
  await tab.page.evaluate(() => {
    const button = document.getElementById('play');
    for (let i = 0; i < 20; i += 1) button.click();
  });
  const first = await tab.playing();
  assert.equal((await up.sessions()).length, 1);
  await tab.page.reload();
  await tab.loaded();
  const again = await tab.play();
  assert.equal(again.sessionId, first.sessionId);
  assert.equal(again.playerId, first.playerId);
  assert.equal((await up.sessions()).length, 1);
});

scene('two tabs play each other by the share link: each sees the other move', async ({ up, open }) => {
  const a = await open();
  const host = await a.play();
  await a.page.click('#invite');
  const link = await a.page.inputValue('#share-link');
  await a.page.click('#share-close');
  assert.match(link, new RegExp(`join=${host.sessionId}`));
  assert.doesNotMatch(link, /token/i);

  const b = await open(link);
  assert.ok(await b.isShown('#joining'));
  assert.equal((await up.session(host.sessionId)).players.length, 1, 'opening the link joins nobody yet');
  const friend = await b.play();
  assert.equal(friend.sessionId, host.sessionId);
  assert.notEqual(friend.playerId, host.playerId);
  assert.notEqual(friend.me.id, host.me.id);
  const { players } = await until('both are connected', () => up.session(host.sessionId), {
    accept: (session) => session.players.filter(({ connections }) => connections > 0).length === 2,
  });
  assert.deepEqual(players.map(({ player_id }) => player_id).sort(), [host.playerId, friend.playerId].sort());
  assert.equal((await up.sessions()).length, 1);

  for (const [mover, watcher, key, axis] of [[a, b, 'ArrowDown', 'y'], [b, a, 'ArrowUp', 'y'], [a, b, 'KeyD', 'x'], [b, a, 'KeyA', 'x']]) {
    const { me } = await mover.state();
    const before = await watcher.until('the other is seen standing', ({ players: seen }) => seen[me.id] !== undefined);
    const moved = ({ players: seen }) => Math.abs(seen[me.id][axis] - before.players[me.id][axis]) > FAR;
    await mover.page.keyboard.down(key);
    const after = await watcher.until(`the other tab sees ${key}`, moved).finally(() => mover.page.keyboard.up(key));
    const sign = key === 'ArrowDown' || key === 'KeyD' ? 1 : -1;
    assert.equal(Math.sign(after.players[me.id][axis] - before.players[me.id][axis]), sign);
    // Both pages tell of the same arena: the mover agrees once the runner has come to rest.
    await until('both see the runner in one place', async () => {
      const [own, seen] = [await mover.state(), await watcher.state()];
      return Math.hypot(own.me.x - seen.players[me.id].x, own.me.y - seen.players[me.id].y);
    }, { accept: (apart) => apart < 2 });
  }
  await Promise.all([a.picture('two-tabs-host'), b.picture('two-tabs-friend')]);
});

/** The player's last activity, as the server knows it. */
async function lastActive(up, { sessionId, playerId }) {
  const { players } = await up.session(sessionId);
  return Date.parse(players.find(({ player_id }) => player_id === playerId).last_active_at ?? 0);
}

/** `act` moves the runner, and the server takes it for activity. */
async function steersAndCounts(up, tab, what, act, release = async () => {}) {
  const before = await tab.state();
  const active = await lastActive(up, before);
  await act();
  await tab.until(`${what} steers`, ({ me }) => Math.hypot(me.x - before.me.x, me.y - before.me.y) > FAR).finally(release);
  await until(`${what} counts as activity`, () => lastActive(up, before), { accept: (at) => at > active });
}

scene('keys, mouse motion and clicks steer and count as activity', async ({ up, open }) => {
  const tab = await open();
  await tab.play();
  const { mouse, keyboard } = tab.page;
  await steersAndCounts(up, tab, 'a key', () => keyboard.down('ArrowLeft'), () => keyboard.up('ArrowLeft'));
  await mouse.move(320, 210);
  await steersAndCounts(up, tab, 'the mouse', () => mouse.move(600, 330, { steps: 4 }), () => mouse.move(320, 210));
  const { me } = await tab.state();
  await steersAndCounts(up, tab, 'a click', () => mouse.click(40, 210));
  await tab.until('towards the click', (state) => state.me.x < me.x);
});

scene('a phone plays with one finger', async ({ up, open }) => {
  const tab = await open('/play', { viewport: { width: 360, height: 640 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true });
  const box = await tab.page.locator('#play').boundingBox();
  assert.ok(box.x >= 0 && box.x + box.width <= 360 && box.y >= 0 && box.y + box.height <= 640, `the start button is on the screen: ${JSON.stringify(box)}`);
  assert.match(await tab.text('#play'), /Tap to play/);
  await tab.picture('phone-title');
  await tab.page.tap('#play');
  await tab.playing();
  const overflow = await tab.page.evaluate(() => [document.documentElement.scrollWidth > innerWidth, document.documentElement.scrollHeight > innerHeight]);
  assert.deepEqual(overflow, [false, false], 'nothing to scroll');
  const dash = await tab.page.locator('#dash-button').boundingBox();
  assert.ok(dash && dash.width >= 44 && dash.height >= 44 && dash.x + dash.width <= 360 && dash.y + dash.height <= 640, `the dash button can be hit: ${JSON.stringify(dash)}`);

  const devtools = await tab.page.context().newCDPSession(tab.page);
  const touch = (type, points) => devtools.send('Input.dispatchTouchEvent', { type, touchPoints: points });
  const drag = async () => {
    await touch('touchStart', [{ x: 120, y: 420 }]);
    for (let x = 130; x <= 190; x += 20) await touch('touchMove', [{ x, y: 420 }]);
  };
  await steersAndCounts(up, tab, 'a finger', drag);
  await tab.picture('phone-playing');
  await touch('touchEnd', []);
  const rested = await tab.until('the runner rests once the finger is gone', async () => true);
  assert.equal(rested.screen, 'playing');
});

const strangeLinks = {
  'a game that never was': async () => ['/play?join=01890a5d-ac96-774b-bcce-b302099a8057&invite=nonsense', /not found/i],
  'no session at all': async () => ['/play?join=..%2F..%2Fetc&invite=%F0%9F%98%80', /not found|did not work/i],
  'the wrong invitation': async (host) => [`/play?join=${(await host()).sessionId}&invite=wrong`, /did not work|not your game/i],
  'a game that is over': async (host, up) => {
    const { sessionId } = await host();
    const link = new URL(await hostLink(host));
    await fetch(`${up.admin}/api/sessions/${sessionId}`, { method: 'DELETE' });
    await up.ended(sessionId);
    host.tab.allow(/WebSocket/);
    return [link.pathname + link.search, /did not work|not found|ended/i];
  },
};
const hostLink = (host) => host.tab.page.inputValue('#share-link');

for (const [what, make] of Object.entries(strangeLinks)) {
  scene(`a link to ${what} says so and offers a game of one's own`, async ({ up, open }) => {
    const host = async () => {
      host.tab ??= await open();
      return host.tab.state().then((state) => (state.screen === 'playing' ? state : host.tab.play()));
    };
    const [path, words] = await make(host, up);
    const tab = await open(path);
    tab.allow(/status of 4\d\d/);
    await tab.page.keyboard.press('Space');
    await tab.until('the link was refused', ({ screen }) => screen === 'error', { hopeless: ({ screen }) => screen === 'playing' });
    assert.match(await tab.text('#error-title'), words);
    assert.ok((await tab.text('#error-text')).length > 10);
    assert.match(await tab.text('#error-action'), /my own game/i);
    await tab.picture(`link-${what.replaceAll(' ', '-')}`);
    await tab.page.click('#error-action');
    const own = await tab.playing();
    assert.notEqual(own.sessionId, (await host.tab?.state())?.sessionId);
  });
}
