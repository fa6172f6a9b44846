// A person with many tabs: each is a game of its own, in front or hidden.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { startUp } from '../lib/command.js';
import { until } from '../lib/until.js';
import { Window } from '../lib/window.js';

const TABS = 10;
const HIDDEN_BEATS = 2; // heartbeats a hidden tab must still send

const PARTY = 7; // one more than the connections that a browser opens to one host

let up;
before(async () => {
  up = await startUp({ fleets: { spice: 'warm = 2' }, queues: { spice: `session_size = ${PARTY}\nflush_wait = "5m"` } });
});
after(() => up?.stop());

/** A window of its own, closed after it, with nothing gone wrong in its tabs. */
function inWindow(name, body, { timeout = 90_000 } = {}) {
  test(name, { timeout }, async () => {
    const window = new Window();
    const tabs = [];
    const open = async () => {
      const tab = await window.open(`${up.url}/play`);
      tabs.push(tab);
      return tab;
    };
    try {
      await body({ window, open });
      for (const tab of tabs) tab.assertClean();
    } catch (error) {
      error.message += `\n--- in the tabs\n${tabs.flatMap(({ faults }) => faults).join('\n')}\n--- log of spawnpoint up\n${up.log.slice(-6000)}`;
      throw error;
    } finally {
      await window.close();
      await up.endAll();
    }
  });
}

inWindow('ten tabs of one profile are ten games on ten processes, and all play, hidden or not', async ({ open }) => {
  const tabs = [];
  for (let i = 0; i < TABS; i += 1) tabs.push(await open());
  assert.equal((await up.sessions()).length, 0, 'opening tabs starts nothing');
  for (const tab of tabs) {
    await tab.show();
    await tab.play();
  }
  const states = await Promise.all(tabs.map((tab) => tab.state()));
  const sessions = await up.sessions();
  assert.equal(sessions.length, TABS);
  assert.deepEqual(states.map(({ sessionId }) => sessionId).sort(), sessions.map(({ session_id }) => session_id).sort());
  assert.equal(new Set(states.map(({ playerId }) => playerId)).size, TABS);
  const games = await Promise.all(states.map(({ sessionId }) => up.gameOf(sessionId)));
  assert.equal(new Set(games.map(({ pid }) => pid)).size, TABS);
  const fleet = await until('the fleet has settled', () => up.fleet('spice'), { accept: ({ warm, starting, stopping }) => warm === 2 && starting + stopping === 0 });
  assert.equal(fleet.claimed, TABS);
  assert.equal(up.games().length, TABS + fleet.warm, 'not one process more than claimed and warm');

  await Promise.all(tabs.map(async (tab, i) => {
    await tab.until(`tab ${i + 1} receives`, ({ framesReceived, screen }) => screen === 'playing' && framesReceived >= states[i].framesReceived + 30);
    const seen = tab.heartbeats.length;
    await until(`tab ${i + 1} sends heartbeats`, () => tab.heartbeats.length, { accept: (now) => now >= seen + HIDDEN_BEATS, within: 15_000 });
  }));
  const visible = await Promise.all(tabs.map((tab) => tab.evaluate('document.visibilityState')));
  assert.equal(visible.filter((state) => state === 'visible').length, 1, 'the others really were hidden');
  assert.deepEqual((await up.sessions()).map(({ phase }) => phase), Array(TABS).fill('running'));
});

inWindow('a duplicated tab is another player', async ({ window, open }) => {
  const first = await open();
  const state = await first.play();
  const stored = () => first.evaluate('sessionStorage.getItem("spawnpoint.identity")');
  const mine = await stored();
  const copy = await window.openedBy(first);
  assert.equal(await copy.evaluate('sessionStorage.getItem("spawnpoint.identity")'), mine, 'it really is a copy');
  await copy.show();
  await copy.visit(`${up.url}/play`);
  const other = await copy.play();
  copy.assertClean();
  assert.notEqual(other.playerId, state.playerId);
  assert.notEqual(other.sessionId, state.sessionId);
  assert.equal(await stored(), mine, 'the first keeps its own');
  await first.show();
  await first.until('and plays on', ({ framesReceived, closed }) => framesReceived > state.framesReceived && closed === null);
  assert.equal((await up.sessions()).length, 2);
});

inWindow('more tabs of one browser than it opens connections find each other', async ({ open }) => {
  const tabs = [];
  for (let i = 1; i <= PARTY; i += 1) {
    const tab = await open();
    tabs.push(tab);
    await tab.show();
    await tab.evaluate('document.getElementById("find-match").click()');
    const inLine = ({ screen, position }) => screen === 'waiting' && position === i;
    if (i < PARTY) await tab.until(`tab ${i} is in line`, inLine, { hopeless: ({ screen }) => screen === 'error', within: 20_000 });
  }
  const playing = ({ screen, sessionId }) => screen === 'playing' && sessionId !== null;
  const states = await Promise.all(tabs.map((tab, i) =>
    tab.until(`tab ${i + 1} plays`, playing, { hopeless: ({ screen }) => screen === 'error', within: 30_000 })));
  const [session, ...others] = await up.sessions();
  assert.deepEqual(others, []);
  assert.deepEqual(new Set(states.map(({ sessionId }) => sessionId)), new Set([session.session_id]));
  assert.deepEqual(session.players.map(({ player_id }) => player_id).sort(), states.map(({ playerId }) => playerId).sort());
});

inWindow('coming back to the tab says so within a second', async ({ open }) => {
  const game = await open();
  const { sessionId } = await game.play();
  await until('the first heartbeat is sent', () => game.heartbeats.length > 0);
  const elsewhere = await open();
  await elsewhere.show();
  await until('leaving the tab was told', () => game.heartbeats.at(-1), { accept: (beat) => beat?.body?.status === 'inactive' });
  await until('the server knows', () => up.why(sessionId), { accept: ({ client_claims: [claim] }) => claim.status === 'inactive' });
  // The next regular heartbeat, so that what comes on return is not that one.
  const hidden = game.heartbeats.length;
  await until('heartbeats go on while hidden', () => game.heartbeats.length > hidden);
  const before = game.heartbeats.length;
  await game.evaluate('document.addEventListener("visibilitychange", () => { window.shownAt = Date.now(); }, { once: true, capture: true })');
  await game.show();
  const { body } = await until('a heartbeat is sent', () => game.heartbeats[before]);
  const late = body.timestamp - await game.evaluate('window.shownAt');
  assert.ok(late >= 0 && late <= 1000, `${late} ms after the tab was shown`);
  assert.equal(body.status, 'active');
  assert.ok(body.idleTime < 1000, `idleTime ${body.idleTime}`);
});
