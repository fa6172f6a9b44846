// The real `spawnpoint up` with a state directory, a configuration and ports of its own.

import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, mkdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isAlive, processesWith } from './processes.js';
import { until } from './until.js';

export const repository = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
// Below the ports that systems give to outgoing connections, so that a restart finds its own free.
const PORTS = { first: 10_000, count: 9_000 };
const LOG_KEPT = 200_000; // characters

/** The newest build, unless SPAWNPOINT_BIN says which. */
function binary() {
  if (process.env.SPAWNPOINT_BIN) return resolve(process.env.SPAWNPOINT_BIN);
  const target = process.env.CARGO_TARGET_DIR ? resolve(process.env.CARGO_TARGET_DIR) : join(repository, 'target');
  const builds = ['debug', 'release'].map((profile) => join(target, profile, 'spawnpoint')).filter((path) => existsSync(path));
  if (builds.length === 0) throw new Error('no spawnpoint to test: run `cargo build -p spawnpoint -p spice`, or set SPAWNPOINT_BIN');
  return builds.sort((a, b) => statSync(b).mtimeMs - statSync(a).mtimeMs)[0];
}

/** A bundled game, for commands that a shell starts: it does not look beside the command as `spawnpoint up` does. */
export function bundled(name) {
  return join(dirname(binary()), name);
}

function isFree(port) {
  return new Promise((done) => {
    const server = createServer();
    server.once('error', () => done(false));
    server.listen({ port, host: '127.0.0.1', exclusive: true }, () => server.close(() => done(true)));
  });
}

export async function freePorts(count) {
  const ports = new Set();
  while (ports.size < count) {
    const port = PORTS.first + Math.floor(Math.random() * PORTS.count);
    if (!ports.has(port) && (await isFree(port))) ports.add(port);
  }
  return [...ports];
}

const running = new Set();
// Whatever kills this test run, it leaves no games behind.
process.on('exit', () => running.forEach((up) => up.wipeOut()));
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.exit(1));

class Up {
  #child = null;
  #log = '';
  #args;
  excused = []; // patterns of log lines that a test provokes

  constructor(dir, ports, flags) {
    this.dir = dir;
    this.stateDir = join(dir, 'state');
    const [port, adminPort, sdkPort] = ports;
    this.url = `http://localhost:${port}`;
    this.admin = `http://127.0.0.1:${adminPort}`;
    this.#args = ['up', '--config', join(dir, 'spawnpoint.toml'), '--state-dir', this.stateDir,
      '--port', port, '--admin-port', adminPort, '--sdk-port', sdkPort, ...flags].map(String);
  }

  get log() { return this.#log; }

  /** Starts it and returns when it says that it is ready. Again after a kill: on the same state and ports. */
  async start() {
    running.add(this);
    const { PATH, LANG = 'C.UTF-8' } = process.env;
    const child = spawn(binary(), this.#args, {
      cwd: this.dir,
      env: { PATH, LANG, HOME: join(this.dir, 'home'), XDG_STATE_HOME: join(this.dir, 'home'), RUST_BACKTRACE: '1',
        SPAWNPOINT_LOG: 'info,spawnpoint=debug,spawnpoint_server=debug,spawnpoint_gateway=debug,spawnpoint_runtime=debug' },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#child = child;
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => { this.#log = (this.#log + text).slice(-LOG_KEPT); });
    }
    child.on('error', (error) => { this.#log += `\n${error}\n`; });
    await until('spawnpoint is ready', async () => {
      if (child.exitCode !== null || child.signalCode !== null) return 'exited';
      const response = await fetch(`${this.url}/readyz`);
      return response.ok && (await response.json()).ready ? 'ready' : response.status;
    }, { accept: (seen) => seen === 'ready', hopeless: (seen) => seen === 'exited', within: 20_000, tolerant: true })
      .catch((error) => { throw new Error(`${error.message}\n--- log\n${this.#log}`); });
    return this;
  }

  async kill() {
    const child = this.#child;
    const gone = new Promise((done) => { child.once('exit', done); });
    child.kill('SIGKILL');
    await gone;
  }

  /** Ends it the way Ctrl-C does. Nothing of it may be left, and it must have nothing to complain of. */
  async stop() {
    const child = this.#child;
    child.kill('SIGTERM');
    await until('spawnpoint stops', () => ({ code: child.exitCode, signal: child.signalCode }), {
      accept: ({ code }) => code === 0, hopeless: ({ code, signal }) => code !== null || signal !== null, within: 30_000,
    }).catch((error) => { throw new Error(`${error.message}\n--- log\n${this.#log}`); });
    await until('no process of it is left', () => processesWith(this.stateDir), { accept: (left) => left.length === 0, within: 5000 });
    running.delete(this);
    rmSync(this.dir, { recursive: true, force: true });
    const complaints = this.#log.split('\n').filter((line) => / ERROR |panicked/.test(line) && !this.excused.some((known) => known.test(line)));
    if (complaints.length > 0) throw new Error(`spawnpoint up logged errors:\n${complaints.join('\n')}`);
    // Tokens travel in queries, headers and beacons' bodies: none of them may be written down.
    const secrets = this.#log.split('\n').filter((line) => /v4\.public\.|k4\.secret|token=[^&\s]{8}/.test(line));
    if (secrets.length > 0) throw new Error(`spawnpoint up logged tokens:\n${secrets.join('\n')}`);
  }

  wipeOut() {
    if (this.#child && isAlive(this.#child.pid)) this.#child.kill('SIGKILL');
    for (const { pid } of processesWith(this.stateDir)) {
      try { process.kill(pid, 'SIGKILL'); } catch { /* gone already */ }
    }
    rmSync(this.dir, { recursive: true, force: true });
  }

  // --- what the API says, beside what the page says ---------------------------------------------
  async get(path) {
    const response = await fetch(this.admin + path);
    const body = await response.json();
    if (!response.ok) throw new Error(`GET ${path}: ${response.status} ${JSON.stringify(body)}`);
    return body;
  }

  session(id) { return this.get(`/api/sessions/${id}`); }

  why(id) { return this.get(`/api/sessions/${id}/why`); }

  async sessions(query = '') { return (await this.get(`/api/sessions?limit=500${query}`)).sessions; }

  async records(query = '') { return (await this.get(`/api/matches?limit=500${query}`)).matches; }

  fleet(name) { return this.get(`/api/fleets/${name}`); }

  /** Game servers of this state directory, warm ones too: `{pid, instance}` each. */
  games() {
    return processesWith(this.stateDir)
      .filter(({ variables, args }) => variables.SPAWNPOINT_INSTANCE && !args.includes('shim'))
      .map(({ pid, variables }) => ({ pid, instance: variables.SPAWNPOINT_INSTANCE }));
  }

  /** The process behind a live session. */
  async gameOf(id) {
    const { instance } = await this.session(id);
    const games = this.games().filter((game) => game.instance === instance?.id);
    if (games.length !== 1) throw new Error(`session ${id} has ${games.length} processes, instance ${JSON.stringify(instance)}`);
    return games[0];
  }

  /** Ends whatever is left, so that the next test can count. */
  async endAll() {
    for (const { session_id: id } of await this.sessions()) await fetch(`${this.admin}/api/sessions/${id}`, { method: 'DELETE' });
    await until('no session is left', () => this.sessions(), { accept: (left) => left.length === 0, within: 15_000 });
  }

  /** The session has ended: its record, of which there is exactly one. */
  async ended(id, { within = 15_000 } = {}) {
    await until(`session ${id} has ended`, () => this.session(id), { accept: ({ phase }) => phase === 'ended', within });
    const records = (await this.records()).filter(({ session_id }) => session_id === id);
    if (records.length !== 1) throw new Error(`${records.length} records of session ${id}`);
    return records[0];
  }
}

/**
 * A running `spawnpoint up`. `fleets` maps names to the lines of their `[[fleet]]` table; each runs
 * the bundled game. The first is the default. `queues` maps names to the lines of their `[[queue]]` table.
 */
export async function startUp({ fleets = { spice: 'warm = 1' }, queues = {}, server = '', flags = [] } = {}) {
  const dir = mkdtempSync(join(tmpdir(), 'spawnpoint-e2e-'));
  mkdirSync(join(dir, 'home'));
  const tables = Object.entries(fleets).map(([name, lines]) =>
    `[[fleet]]\nname = "${name}"\n${/^run\b/m.test(lines) ? '' : 'run = { command = ["spice"] }\n'}${lines}\n`);
  for (const [name, lines] of Object.entries(queues)) tables.push(`[[queue]]\nname = "${name}"\n${lines}\n`);
  writeFileSync(join(dir, 'spawnpoint.toml'), `[server]\n${server}\n\n${tables.join('\n')}`);
  return new Up(dir, await freePorts(3), flags).start();
}

/** The lines of a fleet whose game is set up by variables: `run = …` with `SPICE_*`. */
export function game(variables, lines = '') {
  const env = Object.entries(variables).map(([name, value]) => `${name} = "${value}"`).join(', ');
  return `run = { command = ["spice"], env = { ${env} } }\n${lines}`;
}
