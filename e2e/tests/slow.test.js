// Games that take their time to start, and browsers that stop without leaving.

import assert from 'node:assert/strict';
import { launchKillable, Tab } from '../lib/browser.js';
import { bundled } from '../lib/command.js';
import { family } from '../lib/processes.js';
import { stage } from '../lib/stage.js';
import { until } from '../lib/until.js';

const BOOT_S = 14; // longer than a connection without progress is parked

const scene = stage({
  fleets: {
    slow: `run = { command = ["sh", "-c", "sleep ${BOOT_S}; exec ${bundled('spice')}"] }`,
    sleepy: 'warm = 2\nidle_timeout = "12s"\nreconnect_grace = "12s"',
  },
});

scene('a slow start shows how it goes, never an error, and the game is its own server\'s from the first frame', async ({ up, open }) => {
  assert.deepEqual([up.games(), await up.sessions()].map(({ length }) => length), [2, 0], 'only the warm ones of the other fleet');
  const tab = await open('/play?fleet=slow');
  await tab.noteScreens();
  const frames = [];
  tab.page.on('websocket', (socket) => socket.on('framereceived', ({ payload }) => frames.push(String(payload))));
  await tab.page.keyboard.press('Space');
  await until('the start is told', () => frames.some((frame) => frame.includes('"starting"')), { within: 10_000 });
  const state = await tab.playing({ within: 45_000 });
  assert.ok(!(await tab.screens()).includes('error'));
  const own = frames.findIndex((frame) => frame.startsWith('{"t":'));
  assert.ok(frames.slice(0, own).some((frame) => frame.includes('"running"')), 'progress first, then the game');
  const { receipt } = await up.session(state.sessionId);
  assert.ok(receipt.total_ms >= BOOT_S * 1000, JSON.stringify(receipt));
  await up.gameOf(state.sessionId);
}, { timeout: 90_000 });

scene('a frozen tab and a sleeping machine keep no game', async ({ up, open }) => {
  const frozen = await open('/play?fleet=sleepy');
  const first = await frozen.play();
  const devtools = await frozen.page.context().newCDPSession(frozen.page);
  await devtools.send('Page.setWebLifecycleState', { state: 'frozen' });

  const { browser, pid } = await launchKillable();
  const tab = await Tab.open(await browser.newContext(), `${up.url}/play?fleet=sleepy`);
  const second = await tab.play();
  const asleep = family(pid);
  assert.ok(asleep.length > 1, 'a browser is several processes');
  for (const each of asleep) process.kill(each, 'SIGSTOP');
  try {
    for (const { sessionId } of [first, second]) {
      const record = await up.ended(sessionId, { within: 40_000 });
      assert.ok(['idle', 'empty'].includes(record.reason), record.reason);
    }
    await until('only the warm ones are left', () => up.games(), { accept: ({ length }) => length === 2 });
  } finally {
    for (const each of asleep) process.kill(each, 'SIGKILL');
  }
}, { timeout: 90_000 });
