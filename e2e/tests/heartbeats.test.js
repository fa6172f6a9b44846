// Heartbeats: none before a game, one every five seconds in it, none after it; and what tells the
// server that somebody is (not) there.

import assert from 'node:assert/strict';
import { game } from '../lib/command.js';
import { stage } from '../lib/stage.js';
import { holds, until } from '../lib/until.js';

const ROUND_S = 29;
const FIELDS = ['event', 'idleTime', 'sessionDuration', 'sessionId', 'status', 'timestamp', 'token'];

const scene = stage({
  fleets: {
    spice: 'warm = 1',
    short: game({ SPICE_ROUND_SECONDS: ROUND_S }),
  },
});

/** Exactly these fields, each of its kind. */
function assertBody(body, { sessionId }, status) {
  assert.deepEqual(Object.keys(body).sort(), FIELDS);
  assert.equal(body.event, 'game_session_heartbeat');
  assert.equal(body.sessionId, sessionId);
  assert.equal(body.status, status);
  for (const field of ['timestamp', 'idleTime', 'sessionDuration']) assert.ok(Number.isInteger(body[field]) && body[field] >= 0, `${field} ${body[field]}`);
  assert.ok(Math.abs(body.timestamp - Date.now()) < 60_000);
  assert.match(body.token, /^v4\.public\./);
}

scene('five heartbeats in 25 seconds of play, none after game over, and again after a restart', async ({ up, open }) => {
  const tab = await open('/play?fleet=short');
  const asked = Date.now();
  const { sessionId } = await tab.play();
  await until('the first heartbeat is sent', () => tab.heartbeats.length > 0, { within: 5000 });
  const started = tab.heartbeats[0].at;
  assert.ok(started - asked <= 15_000);

  // Steps to and fro all the while, in turn with looking.
  let step = 0;
  await holds('the game goes on', async () => {
    const key = step % 2 === 0 ? 'ArrowLeft' : 'ArrowRight';
    step += 1;
    await tab.page.keyboard.press(key, { delay: 60 });
    return tab.state();
  }, { accept: ({ screen }) => screen === 'playing', ms: 25_000 - (Date.now() - started) });
  const counted = tab.heartbeats.filter(({ at }) => at < started + 25_000);
  assert.ok(counted.length >= 4 && counted.length <= 6, `${counted.length} heartbeats in 25 s`);
  for (const { body, path, type } of counted) {
    assertBody(body, { sessionId }, 'active');
    assert.equal(path, `/api/sessions/${sessionId}/heartbeat`);
    assert.equal(type, 'fetch');
    assert.ok(body.idleTime < 5000, `somebody played all the while, yet idleTime is ${body.idleTime}`);
  }
  const last = counted.at(-1).body;
  assert.ok(last.sessionDuration >= 15_000 && last.sessionDuration <= 26_000, `sessionDuration ${last.sessionDuration}`);
  const [claim] = (await up.why(sessionId)).client_claims;
  assert.equal(claim.status, 'active');
  assert.ok(claim.session_duration_ms >= last.sessionDuration);

  await tab.until('the round is over', ({ screen }) => screen === 'over', { within: 30_000 });
  await until('the end was told', () => tab.heartbeats.at(-1).body.status, { accept: (status) => status === 'inactive' });
  assertBody(tab.heartbeats.at(-1).body, { sessionId }, 'inactive');
  await until('the server knows', () => up.why(sessionId), { accept: ({ client_claims: [{ status }] }) => status === 'inactive' });
  const sent = tab.heartbeats.length;
  await tab.picture('game-over');
  await holds('no heartbeat after game over', () => tab.heartbeats.length, { accept: (now) => now === sent, ms: 15_000 });

  // Playable again within a second by the page's own clock, in the same session.
  await tab.page.evaluate(() => {
    addEventListener('keydown', () => { window.restartAsked = performance.now(); }, { once: true, capture: true });
    new MutationObserver(() => {
      if (document.body.dataset.screen === 'playing') window.restartDone ??= performance.now();
    }).observe(document.body, { attributes: true, attributeFilter: ['data-screen'] });
  });
  const again = await tab.play();
  const took = await tab.page.evaluate(() => window.restartDone - window.restartAsked);
  assert.ok(took <= 1000, `playable ${took} ms after Space`);
  assert.equal(again.sessionId, sessionId);
  assert.equal(again.me.score, 0);
  await until('heartbeats go on', () => tab.heartbeats.length > sent);
  assertBody(tab.heartbeats.at(-1).body, { sessionId }, 'active');
  assert.equal((await up.sessions()).length, 1);
}, { timeout: 120_000 });

scene('a thousand keys in a second cost at most one request', async ({ open }) => {
  const tab = await open();
  await tab.play();
  const quiet = await until('a heartbeat says that nobody pressed anything', () => tab.heartbeats.at(-1), {
    accept: (beat) => beat?.body.idleTime >= 5000, within: 16_000,
  });
  const before = tab.heartbeats.length;
  // A page may say one thing more a second, so the burst is a little longer than that.
  await tab.page.evaluate(() => new Promise((done) => {
    let sent = 0;
    const timer = setInterval(() => {
      for (let i = 0; i < 10; i += 1) {
        for (const type of ['keydown', 'keyup']) dispatchEvent(new KeyboardEvent(type, { code: 'ArrowLeft', bubbles: true }));
      }
      sent += 20;
      if (sent < 1500) return;
      clearInterval(timer);
      done();
    }, 20);
  }));
  const burst = tab.heartbeats.slice(before);
  assert.equal(burst.length, 1);
  assert.ok(burst[0].body.idleTime < 1000, `idleTime ${burst[0].body.idleTime} after ${quiet.body.idleTime}`);
});

scene('leaving the page says inactive by beacon, and coming back finds the game', async ({ up, open }) => {
  const tab = await open();
  const { sessionId } = await tab.play();
  await until('the first heartbeat is sent', () => tab.heartbeats.length > 0);
  tab.allow(/favicon.ico/);
  await tab.page.goto(`${up.url}/client/spawnpoint.js`);
  const beacon = await until('a beacon was sent', () => tab.heartbeats.find(({ type }) => type === 'ping'));
  assertBody(beacon.body, { sessionId }, 'inactive');
  await until('the server took it', () => up.why(sessionId), { accept: ({ client_claims: [claim] }) => claim?.status === 'inactive' });
  assert.equal((await up.session(sessionId)).phase, 'running', 'a beacon ends nothing');
  await tab.page.goto(`${up.url}/play`);
  await tab.loaded();
  assert.equal((await tab.play()).sessionId, sessionId);
  await until('active again', () => up.why(sessionId), { accept: ({ client_claims: [claim] }) => claim?.status === 'active' });
});
