import assert from 'node:assert/strict';
import { it } from 'node:test';
import { View } from './view.js';
import { endWords, phaseWords, refusalWords, warningWords } from './words.js';

const row = (id, x, y, status = 1) => [id, status, x, y, 300, 0, 0, 5, 9, 1, 3, 0, 100];
const state = (k, rows, more = {}) => ({ t: 's', k, ph: 'play', left: 300, rd: 1, p: rows, w: [], th: [], ...more });

function view() {
  const made = new View();
  made.takeHello({ id: 1, tick_hz: 30, arena: [2400, 1500], rocks: [] });
  return made;
}

it('interpolates others between two states', () => {
  const v = view();
  v.takeState(state(30, [row(2, 100, 50)]), 11);
  v.takeState(state(33, [row(2, 130, 50)]), 11.1);
  const at = 10 + 1.05 + 0.085; // half way, in the delayed picture
  const [other] = v.sample(at, 1).players;
  assert.ok(Math.abs(other.x - 115) < 0.5, String(other.x));
});

it('draws one\'s own runner ahead of the newest state, but within the arena', () => {
  const v = view();
  v.takeState(state(30, [row(1, 100, 50)]), 11);
  v.takeState(state(31, [row(1, 110, 50)]), 11 + 1 / 30);
  const [me] = v.sample(11 + 1 / 30 + 0.05, 1).players;
  assert.ok(me.x > 120 && me.x < 130, String(me.x));
  v.takeState(state(32, [row(1, 2379, 50)]), 11 + 2 / 30);
  assert.equal(v.sample(11.2, 1).players[0].x, 2380);
});

it('does not slide a respawned runner across the arena', () => {
  const v = view();
  v.takeState(state(30, [row(2, 100, 50)]), 11);
  v.takeState(state(33, [row(2, 1900, 900)]), 11.1);
  assert.equal(v.sample(11.135, 1).players[0].x, 1900);
});

it('keeps the spice until a message brings a new list, and starts anew with another server', () => {
  const v = view();
  v.takeState(state(300, [], { sp: [7, 10, 20, 1, 8, 30, 40, 0] }), 20);
  v.takeState(state(301, []), 20.03);
  assert.deepEqual(v.sample(20.2, 1).spice, [{ id: 7, x: 10, y: 20, rich: true }, { id: 8, x: 30, y: 40, rich: false }]);
  v.takeState(state(3, [row(2, 5, 5)]), 21);
  assert.equal(v.states.length, 1);
});

it('has words for every close code and refusal', () => {
  for (const code of [1000, 1013, 4401, 4403, 4404, 4408, 4409, 4410, 4411, 4500]) {
    assert.notEqual(endWords(code, '')[0], 'Disconnected', String(code));
  }
  assert.equal(endWords(1006, 'unreachable')[0], 'Connection lost');
  assert.match(refusalWords({ status: 503, retryAfter: 3 }, false)[1], /3 s/);
  assert.equal(refusalWords(new TypeError('failed'), false)[0], 'No connection');
  assert.match(phaseWords({ type: 'queued', position: 4 }), /number 4/);
  assert.match(warningWords({ reason: 'idle', secondsLeft: 9 }), /9 s/);
});
