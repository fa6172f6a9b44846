// What a newcomer types: `make play`, and the load test's lines, as they are written in the documents.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { launch, SMALL, Tab } from '../lib/browser.js';
import { freePorts, repository } from '../lib/command.js';
import { processesWith } from '../lib/processes.js';
import { until } from '../lib/until.js';

const PATIENCE = 180_000; // only keeps a failure from hanging
const state = mkdtempSync(join(tmpdir(), 'spawnpoint-make-'));
const variables = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(SPAWNPOINT_|MAKE|CLIENTS$|NODE_|npm_)/.test(name)));
let play;
let url;
let browser;

/** One line of a document, in a shell at the root. */
function make(line) {
  const child = spawn('sh', ['-c', `exec ${line}`], { cwd: repository, env: variables, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
  child.said = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => { child.said += text; });
  child.over = new Promise((done) => { child.on('exit', (code, signal) => done(code ?? signal)); });
  return child;
}

before(async () => {
  const [port, admin, sdk] = await freePorts(3);
  play = make(`make play ARGS='--port ${port} --admin-port ${admin} --sdk-port ${sdk} --state-dir ${state}'`);
  await until('a page to play on is printed', () => play.said.match(new RegExp(`http://localhost:${port}\\S*`)), {
    hopeless: () => play.exitCode !== null, within: PATIENCE,
  }).catch((error) => { throw new Error(`${error.message}\n${play.said}`); });
  url = `http://localhost:${port}`;
  browser = await launch();
}, { timeout: PATIENCE });

after(async () => {
  await browser?.close();
  if (play && play.exitCode === null) {
    process.kill(-play.pid, 'SIGTERM');
    await play.over;
  }
  await until('nothing of it is left', () => processesWith(state), { accept: ({ length }) => length === 0 });
  rmSync(state, { recursive: true, force: true });
});

test('make play, two tabs, "Find match": one match', { timeout: PATIENCE }, async () => {
  const tabs = [];
  for (let i = 0; i < 2; i += 1) tabs.push(await Tab.open(await browser.newContext({ viewport: SMALL }), `${url}/play`));
  for (const tab of tabs) await tab.page.click('#find-match');
  const states = await Promise.all(tabs.map((tab) => tab.playing({ within: 30_000 })));
  assert.equal(states[0].sessionId, states[1].sessionId);
  assert.notEqual(states[0].playerId, states[1].playerId);
  for (const tab of tabs) {
    await tab.receives();
    tab.assertClean();
    await tab.page.context().close();
  }
});

/** Runs a line of the load test to its good end. */
async function load(line) {
  const run = make(line);
  assert.equal(await run.over, 0, `${line}\n${run.said}`);
  return run.said;
}

test('make game-load-local: fifty clients and matches of 30 s unless told otherwise', { timeout: PATIENCE }, async () => {
  const address = `TARGET_URL=${url}`;
  // One after the other: players of two runs would be matched with each other.
  const usual = await load(`env ${address} make game-load-local`);
  const hundred = await load(`env ${address} MATCH_DURATION=4.5 CLIENTS=101 make game-load-local`);
  const whole = await load(`env SPAWN_RATE=10 MATCH_DURATION=4 ${address} CLIENTS=20 make game-load-local`);
  assert.match(usual, /50 clients, all at once; 30 s matches; 25 matches/);
  assert.match(hundred, /101 clients, all at once; 4\.5 s matches; 51 matches/);
  assert.match(whole, /20 clients, 10 a second; 4 s matches; 10 matches/);
  for (const said of [usual, hundred, whole]) assert.match(said, /failures: none[^]*passed\s*$/);
});
