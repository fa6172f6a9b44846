// An HTTP game in a real browser, on a host name of its own: the token goes, the cookie stays, and everything on the page works.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { stage } from '../lib/stage.js';
import { until } from '../lib/until.js';

const SERVER = resolve(dirname(fileURLToPath(import.meta.url)), '../../examples/notebook/server.py');
const UPLOAD = 3_000_000; // bytes
const notebook = `run = { command = ["python3", "${SERVER}"] }\nprotocol = "http"\nready = { http = "/healthz" }\n`;

const scene = stage({ fleets: { notebook: `${notebook}warm = 1`, hasty: `${notebook}idle_timeout = "6s"\nreconnect_grace = "1s"\nwarnings = ["2s"]` } });

async function start(up, player, fleet = 'notebook') {
  const response = await fetch(`${up.url}/api/new-game?wait=20`, { method: 'POST', body: JSON.stringify({ playerId: player, fleet }) });
  return response.json();
}

/** A page whose every fault is remembered. */
async function visit(context, url) {
  const page = await context.newPage();
  const faults = [];
  page.on('pageerror', (error) => faults.push(`uncaught: ${error.stack ?? error}`));
  page.on('console', (message) => { if (message.type() === 'error') faults.push(`${message.text()} ${message.location().url}`); });
  const answer = await page.goto(url);
  return { page, faults, answer };
}

scene('a link opens a notebook; its links, clock, kernel and uploads work', async ({ up, profile }) => {
  const session = await start(up, 'ann');
  const own = new URL(session.url);
  assert.equal(own.host, `${session.session_id}.${new URL(up.url).host}`);
  assert.equal(session.share_url, null);
  const context = await profile();
  const { page, faults, answer } = await visit(context, session.url);
  assert.equal(answer.status(), 200);
  assert.equal(answer.request().redirectedFrom()?.url(), session.url);
  assert.equal(page.url(), `${own.origin}/`, 'the token is not in the address any more');
  const [cookie, ...more] = (await context.cookies()).filter(({ name }) => name === 'spawnpoint');
  assert.deepEqual(more, []);
  assert.deepEqual([cookie.value, cookie.domain, cookie.path, cookie.httpOnly, cookie.sameSite], [session.token, own.hostname, '/', true, 'Lax']);
  assert.equal(await page.evaluate(() => document.cookie), 'visits=1', 'out of reach of the page');

  assert.equal(await page.innerText('#player'), 'ann');
  await until('the clock ticks', () => page.innerText('#tick'), { accept: (tick) => Number(tick) >= 3 });
  await page.fill('#code', 'x = 6 * 7');
  await page.press('#code', 'Enter');
  await page.fill('#code', 'x / 4');
  await page.press('#code', 'Enter');
  await until('the kernel answers', () => page.innerText('#output'), { accept: (text) => text.trim() === 'x = 42\n10.5' });

  const dir = mkdtempSync(join(tmpdir(), 'spawnpoint-upload-'));
  try {
    const file = join(dir, 'data ü.bin');
    writeFileSync(file, Buffer.alloc(UPLOAD, 7));
    await page.setInputFiles('#file', file);
    await until('the upload is counted', () => page.innerText('#uploaded'), { accept: (text) => text === `${UPLOAD} bytes` });
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
  await page.click('#files');
  assert.equal(page.url(), `${own.origin}/files`);
  assert.match(await page.innerText('body'), new RegExp(`data ü\\.bin: ${UPLOAD} bytes`));
  await page.click('button');
  assert.equal(page.url(), `${own.origin}/files`, 'a form, answered by a redirect');
  assert.doesNotMatch(await page.innerText('body'), /data/);
  await page.click('#home');
  assert.equal(await page.innerText('#visits'), '2', 'its own cookie came back');
  assert.deepEqual(faults.filter((fault) => !/favicon/.test(fault)), []);
  assert.equal((await up.session(session.session_id)).phase, 'running');
});

scene('the page of one session can do nothing to another or to the server', async ({ up, profile }) => {
  const context = await profile();
  const victim = await start(up, 'victim');
  await visit(context, victim.url); // the cookie is in this browser
  const attacker = await start(up, 'attacker');
  const { page } = await visit(context, attacker.url);
  const host = new URL(victim.url).origin;
  const tried = await page.evaluate(async ([origin, api]) => {
    const attempt = async (url, options) => {
      try {
        const response = await fetch(url, { credentials: 'include', ...options });
        return response.type === 'opaque' ? 'opaque' : response.status;
      } catch { return 'blocked'; }
    };
    const socket = new Promise((done) => {
      const s = new WebSocket(`${origin.replace('http', 'ws')}/kernel`);
      s.onopen = () => done('open');
      s.onclose = () => done('blocked');
    });
    const picture = new Promise((done) => {
      const image = new Image();
      image.onload = () => done('loaded');
      image.onerror = () => done('blocked');
      image.src = `${origin}/whoami`;
    });
    return {
      put: await attempt(`${origin}/files/evil`, { method: 'PUT', body: 'x' }),
      post: await attempt(`${origin}/forget`, { method: 'POST', mode: 'no-cors' }),
      read: await attempt(`${origin}/whoami`),
      picture: await picture,
      socket: await socket,
      api: await attempt(`${api}/api/new-game`, { method: 'POST', body: '{"playerId":"victim"}' }),
      cookie: document.cookie,
    };
  }, [host, up.url]);
  assert.deepEqual(tried, { put: 'blocked', post: 'opaque', read: 'blocked', picture: 'blocked', socket: 'blocked', api: 'blocked', cookie: 'visits=1' });
  const { page: own } = await visit(context, `${host}/files`);
  assert.doesNotMatch(await own.innerText('body'), /evil/, 'nothing arrived');
});

scene('without a token a page says what to do', async ({ up, profile }) => {
  const session = await start(up, 'ann');
  const { page, answer } = await visit(await profile(), new URL('/', session.url).href);
  assert.equal(answer.status(), 401);
  assert.match(await page.innerText('body'), /link with a token is needed[\s\S]*Open the session's link again/);
  await fetch(`${up.admin}/api/sessions/${session.session_id}`, { method: 'DELETE' });
  await up.ended(session.session_id);
  const { page: late, answer: over } = await visit(await profile(), session.url);
  assert.equal(over.status(), 404);
  assert.match(await late.innerText('body'), /This session is over/);
});

scene('a reader is there between two clicks, and idle when they stop', async ({ up, profile }) => {
  const session = await start(up, 'reader', 'hasty');
  const { page } = await visit(await profile(), new URL('/files?' + new URL(session.url).search.slice(1), session.url).href);
  for (let click = 0; click < 3; click += 1) {
    const before = (await up.session(session.session_id)).last_active_at;
    // Longer than the reconnect grace: nobody holds a connection meanwhile.
    await until('time passes', () => Date.now(), { accept: (now) => now > Date.parse(before) + 3000, within: 20_000 });
    const now = await up.session(session.session_id);
    assert.deepEqual([now.phase, now.cull_reason], ['running', 'idle']);
    await page.reload();
    await until('the click counts', () => up.session(session.session_id), { accept: ({ last_active_at: at }) => at > before });
  }
  assert.equal((await up.ended(session.session_id)).reason, 'idle');
});
