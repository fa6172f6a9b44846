// "Find match": players who never heard of each other meet in one game.

import assert from 'node:assert/strict';
import { stage } from '../lib/stage.js';
import { holds, until } from '../lib/until.js';

const FLUSH_S = 2;

const scene = stage({
  fleets: { spice: 'warm = 1', lone: '' },
  queues: {
    spice: 'session_size = 2\nflush_wait = "5m"',
    lone: `session_size = 2\nflush_wait = "${FLUSH_S}s"`,
  },
});

const ticketOf = (up, playerId) => up.get(`/api/match/status?player_id=${playerId}`);
const identity = (tab) => tab.page.evaluate(() => JSON.parse(sessionStorage.getItem('spawnpoint.identity')));

/** Requests of the lobby's stream that are open. */
function streams(tab) {
  const open = new Set();
  const isStream = (request) => new URL(request.url()).pathname === '/api/events';
  tab.page.on('request', (request) => { if (isStream(request)) open.add(request); });
  for (const over of ['requestfinished', 'requestfailed']) tab.page.on(over, (request) => open.delete(request));
  return open;
}

/** Each sees the other's runner in the arena. */
async function meet(tabs, states) {
  const ids = states.map(({ me }) => me.id);
  assert.equal(new Set(ids).size, tabs.length, 'a runner each');
  await Promise.all(tabs.map((tab) => tab.until('all runners are in the arena', ({ arena, players }) =>
    arena === 'play' && ids.every((id) => players[id] !== undefined))));
}

scene('two tabs that ask for a match meet in one game', async ({ up, open }) => {
  const [a, b] = [await open(), await open()];
  const lobby = streams(a);
  for (const tab of [a, b]) await tab.noteScreens();
  const first = await a.findMatch();
  assert.equal(first.position, 1);
  assert.equal((await ticketOf(up, (await identity(a)).playerId)).ticket_id, first.ticketId);
  assert.equal(await a.text('#waiting-place'), 'You are first in line.');
  await until('the lobby tells of the ticket by its stream', () => lobby.size, { accept: (count) => count === 1 });
  assert.deepEqual(await up.sessions(), [], 'no game is made for one');

  // By keyboard alone, as far as the button.
  for (let i = 0; i < 10 && (await b.page.evaluate(() => document.activeElement.id)) !== 'find-match'; i += 1) await b.page.keyboard.press('Tab');
  await b.page.keyboard.press('Enter');
  const states = await Promise.all([a.playing(), b.playing()]);
  assert.equal(states[0].sessionId, states[1].sessionId);
  assert.notEqual(states[0].playerId, states[1].playerId);
  for (const tab of [a, b]) assert.deepEqual(await tab.screens(), ['waiting', 'starting', 'playing']);
  await meet([a, b], states);
  const [session, ...others] = await up.sessions();
  assert.deepEqual(others, []);
  assert.deepEqual(session.players.map(({ player_id }) => player_id).sort(), states.map(({ playerId }) => playerId).sort());
  assert.equal(lobby.size, 0, 'no stream while playing');
  assert.equal((await up.get(`/api/match/status?player_id=${states[0].playerId}`)).session_id, session.session_id);
  await Promise.all([a.receives(), b.receives()]);
  await Promise.all([a.picture('match-first'), b.picture('match-second')]);

  // Over for both: the queue is where they came from, and where the page offers to go back to.
  for (const tab of [a, b]) tab.allow(/WebSocket/);
  await fetch(`${up.admin}/api/sessions/${session.session_id}`, { method: 'DELETE' });
  await a.until('the page says so', ({ screen }) => screen === 'error');
  assert.match(await a.text('#error-action'), /Find another match/);
  await a.page.click('#error-action');
  const next = await a.inLine();
  assert.notEqual(next.ticketId, first.ticketId);
  await a.page.keyboard.press('Escape');
  await a.until('back at the title', ({ screen }) => screen === 'title');
});

scene('somebody whom nobody joins is matched once the flush wait is over', async ({ up, open }) => {
  const tab = await open('/play?fleet=lone');
  const { ticketId } = await tab.findMatch();
  assert.match(await tab.text('#waiting-estimate'), /^(\d+ s|soon)$/);
  const { sessionId, playerId } = await tab.playing({ within: FLUSH_S * 1000 + 15_000 });
  const status = await ticketOf(up, playerId);
  assert.deepEqual([status.status, status.session_id, status.ticket_id], ['matched', sessionId, ticketId]);
  assert.ok(status.waited_s >= FLUSH_S && status.waited_s < FLUSH_S + 1, `matched after ${status.waited_s} s`);
  const session = await up.session(sessionId);
  assert.deepEqual([session.fleet, session.players.map(({ player_id }) => player_id)], ['lone', [playerId]]);
});

scene('the waiting panel: fits, does not jump, takes the focus, and Space does not cancel', async ({ open }) => {
  const views = { wide: { viewport: { width: 1280, height: 720 }, colorScheme: 'light' },
    phone: { viewport: { width: 360, height: 640 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true, colorScheme: 'dark' } };
  for (const [name, settings] of Object.entries(views)) {
    const tab = await open('/play', settings);
    const { width, height } = settings.viewport;
    const inView = async (selector) => {
      const box = await tab.page.locator(selector).boundingBox();
      assert.ok(box && box.x >= 0 && box.y >= 0 && box.x + box.width <= width && box.y + box.height <= height, `${name} ${selector}: ${JSON.stringify(box)}`);
      return box;
    };
    await inView('#find-match');
    await tab.page.click('#find-match');
    const early = await inView('#waiting');
    await tab.inLine();
    await until('a second has passed', () => tab.text('#waiting-time'), { accept: (shown) => shown !== '0:00' });
    assert.deepEqual(await inView('#waiting'), early, 'nothing moved when it was filled');
    const { height: target } = await inView('#waiting-cancel');
    assert.ok(target >= 44, 'the button can be hit with a thumb');
    await tab.page.keyboard.press('Space');
    await tab.page.keyboard.press('Enter');
    assert.equal((await tab.state()).screen, 'waiting');
    assert.deepEqual(await tab.page.evaluate(() => [document.activeElement.id, document.documentElement.scrollWidth > innerWidth]), ['waiting', false]);
    await tab.picture(`waiting-${name}`);
    await tab.page.keyboard.press('Tab');
    assert.equal(await tab.page.evaluate(() => document.activeElement.id), 'waiting-cancel');
    await tab.page.keyboard.press('Enter');
    await tab.until('back at the title', ({ screen }) => screen === 'title');
  }
});

scene('cancel leaves the queue, by button and by Escape, and leaves no ghost for the next', async ({ up, open }) => {
  const tab = await open();
  for (const cancel of [() => tab.page.click('#waiting-cancel'), () => tab.page.keyboard.press('Escape')]) {
    await tab.findMatch();
    const { playerId } = await identity(tab);
    assert.equal((await ticketOf(up, playerId)).status, 'queued');
    await cancel();
    await tab.until('back at the title', ({ screen, ticketId }) => screen === 'title' && ticketId === null);
    assert.equal((await ticketOf(up, playerId)).status, 'none');
    assert.equal(await tab.page.evaluate(() => document.activeElement.id), 'find-match');
  }
  await tab.page.reload();
  await tab.loaded();
  await holds('a reload does not queue again', () => tab.state(), { accept: ({ screen }) => screen === 'title', ms: 800 });
  const other = await open();
  assert.equal((await other.findMatch()).position, 1);
  await holds('the other goes on waiting', () => other.state(), { accept: ({ screen }) => screen === 'waiting', ms: 800 });
  // Not in line: a game of one's own as ever.
  await tab.play();
  const [session] = await up.sessions();
  assert.equal(session.players.length, 1);
  await other.page.click('#waiting-cancel');
  await other.until('back at the title', ({ screen }) => screen === 'title');
});

scene('a reload while waiting keeps the ticket, its place and its age', async ({ up, open }) => {
  const tab = await open();
  const before = await tab.findMatch();
  await until('some time has passed', () => tab.text('#waiting-time'), { accept: (shown) => shown >= '0:02' });
  await tab.page.reload();
  await tab.loaded();
  const after = await tab.inLine();
  assert.deepEqual([after.ticketId, after.position], [before.ticketId, 1]);
  assert.ok((await tab.text('#waiting-time')) >= '0:02', 'it goes on counting');
  assert.equal(tab.requests.filter((request) => request === 'POST /api/match/join').length, 1, 'nobody joined a second time');
  const other = await open();
  await other.page.click('#find-match');
  const states = await Promise.all([tab.playing(), other.playing()]);
  assert.equal(states[0].sessionId, states[1].sessionId);
  assert.equal((await up.sessions()).length, 1);
});

scene('a game of one\'s own is given up for a match; a match is come back to', async ({ up, open }) => {
  const tab = await open();
  const own = await tab.play();
  await tab.page.reload();
  await tab.loaded();
  await tab.findMatch();
  assert.equal((await up.ended(own.sessionId)).reason, 'ended_by_client');
  const other = await open();
  await other.page.click('#find-match');
  const [match] = await Promise.all([tab.playing(), other.playing()]);
  await tab.page.reload();
  await tab.loaded();
  await tab.page.click('#find-match');
  assert.equal((await tab.playing()).sessionId, match.sessionId);
  assert.equal((await up.sessions()).length, 1);
});

scene('a duplicated tab is a player of its own: the two meet', async ({ open, adopt }) => {
  const tab = await open();
  const { ticketId } = await tab.findMatch();
  const opened = tab.page.waitForEvent('popup');
  await tab.page.evaluate(() => { window.open(location.href); });
  const copy = adopt(await opened);
  await copy.loaded();
  await copy.page.click('#find-match');
  const states = await Promise.all([tab.playing(), copy.playing()]);
  assert.equal(states[0].sessionId, states[1].sessionId);
  assert.notEqual(states[0].playerId, states[1].playerId);
  assert.equal(states[0].ticketId, ticketId);
});

scene('where the stream does not come through, questions do', async ({ open }) => {
  const tab = await open();
  tab.allow(/ERR_FAILED.*\/api\/events/, /Failed to load resource: net::ERR_FAILED/);
  await tab.page.route('**/api/events?*', (route) => route.abort());
  await tab.findMatch();
  await until('it asks after its ticket', async () => tab.requests.includes('GET /api/match/status'));
  const other = await open();
  await other.page.click('#find-match');
  const states = await Promise.all([tab.playing(), other.playing()]);
  assert.equal(states[0].sessionId, states[1].sessionId);
});

scene('kill -9 of Spawnpoint: who waits joins again by itself and is matched', async ({ up, open }) => {
  const tab = await open();
  tab.allow(/ERR_CONNECTION_REFUSED/, /Failed to load resource: net::/);
  await tab.findMatch();
  await up.kill();
  await until('the page says that the server is away', () => tab.text('#waiting-place'), { accept: (shown) => /still trying/.test(shown) });
  await tab.picture('waiting-offline');
  await up.start();
  await until('it is in line again', () => tab.text('#waiting-place'), { accept: (shown) => /first in line/.test(shown), within: 20_000 });
  const other = await open();
  await other.page.click('#find-match');
  const states = await Promise.all([tab.playing(), other.playing()]);
  assert.equal(states[0].sessionId, states[1].sessionId);
});

scene('a queue that is not there is said in words', async ({ open }) => {
  const tab = await open('/play?queue=nonsense');
  tab.allow(/status of 404/);
  await tab.page.click('#find-match');
  await tab.until('it was refused', ({ screen }) => screen === 'error');
  assert.match(await tab.text('#error-text'), /nonsense/);
  assert.match(await tab.text('#error-code'), /queue_not_found/);
});
