// One Chromium window with real tabs: one is in front, the others are hidden and throttled, as a
// person's are. Playwright makes every page believe that it is in front, so this speaks the
// DevTools protocol itself, over a pipe.

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { launchOptions } from './browser.js';
import { until } from './until.js';

const KEYS = { ' ': { code: 'Space', text: ' ', windowsVirtualKeyCode: 32 }, ArrowLeft: { code: 'ArrowLeft', windowsVirtualKeyCode: 37 } };

export class Window {
  #child;
  #profile = mkdtempSync(join(tmpdir(), 'spawnpoint-e2e-profile-'));
  #received = '';
  #asked = 0;
  #answers = new Map(); // id -> [resolve, reject]
  #tabs = new Map(); // DevTools session -> tab

  constructor() {
    const { executablePath, args } = launchOptions();
    this.#child = spawn(executablePath, ['--headless', ...args, `--user-data-dir=${this.#profile}`, '--window-size=640,420',
      '--remote-debugging-pipe', 'about:blank'], { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
    this.#child.stdio[4].setEncoding('utf8').on('data', (text) => this.#take(text));
    this.#child.stdio[3].on('error', () => {}); // its end is seen by whoever waits for an answer
    this.#child.once('exit', () => {
      for (const [, refuse] of this.#answers.values()) refuse(new Error('the browser has ended'));
    });
  }

  #take(text) {
    const messages = (this.#received + text).split('\0');
    this.#received = messages.pop();
    for (const message of messages.map((line) => JSON.parse(line))) {
      const waiting = this.#answers.get(message.id);
      if (waiting) {
        this.#answers.delete(message.id);
        if (message.error) waiting[1](new Error(message.error.message));
        else waiting[0](message.result);
      } else this.#tabs.get(message.sessionId)?.heard(message.method, message.params);
    }
  }

  send(method, params = {}, sessionId = undefined) {
    this.#asked += 1;
    const id = this.#asked;
    return new Promise((resolve, reject) => {
      this.#answers.set(id, [resolve, reject]);
      this.#child.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    });
  }

  /** Opens a tab in front of the others. */
  async open(url) {
    const { targetId } = await this.send('Target.createTarget', { url: 'about:blank' });
    const tab = await this.#attach(targetId);
    await tab.visit(url);
    return tab;
  }

  async #attach(targetId) {
    const { sessionId } = await this.send('Target.attachToTarget', { targetId, flatten: true });
    const tab = new RealTab(this, targetId, sessionId);
    this.#tabs.set(sessionId, tab);
    for (const domain of ['Page', 'Runtime', 'Log', 'Network']) await tab.send(`${domain}.enable`);
    return tab;
  }

  /** An empty tab opened by a script of `tab`: as with "duplicate tab", it has a copy of its sessionStorage. */
  async openedBy(tab) {
    const before = new Set((await this.send('Target.getTargets')).targetInfos.map((info) => info.targetId));
    await tab.evaluate('void window.open("about:blank")', { userGesture: true });
    const { targetId } = await until('the tab has opened', async () => {
      const { targetInfos } = await this.send('Target.getTargets');
      return targetInfos.find((info) => info.type === 'page' && !before.has(info.targetId));
    });
    return this.#attach(targetId);
  }

  async close() {
    const gone = new Promise((done) => { this.#child.once('exit', done); });
    await this.send('Browser.close').catch(() => this.#child.kill('SIGKILL'));
    await gone;
    rmSync(this.#profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  }
}

class RealTab {
  faults = [];
  heartbeats = [];

  constructor(window, targetId, sessionId) {
    Object.assign(this, { window, targetId, sessionId });
  }

  heard(method, params) {
    if (method === 'Runtime.exceptionThrown') this.faults.push(`uncaught: ${params.exceptionDetails.exception?.description ?? params.exceptionDetails.text}`);
    if (method === 'Log.entryAdded' && params.entry.level === 'error') this.faults.push(`console: ${params.entry.text} ${params.entry.url ?? ''}`);
    if (method === 'Network.requestWillBeSent' && params.request.url.endsWith('/heartbeat') && params.request.method === 'POST') {
      this.heartbeats.push({ at: Date.now(), body: params.request.postData ? JSON.parse(params.request.postData) : null });
    }
  }

  assertClean() {
    if (this.faults.length > 0) throw new Error(`faults in the page:\n${this.faults.join('\n')}`);
  }

  send(method, params) { return this.window.send(method, params, this.sessionId); }

  async evaluate(expression, { userGesture = false } = {}) {
    const { result, exceptionDetails } = await this.send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true, userGesture });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  async visit(url) {
    await this.send('Page.navigate', { url });
    await until('the page has loaded', () => this.evaluate('Boolean(window.__spawnpoint)'));
  }

  state() { return this.evaluate('JSON.parse(JSON.stringify(window.__spawnpoint))'); }

  until(what, accept, options = {}) { return until(what, () => this.state(), { accept, ...options }); }

  /** In front of the others, which become hidden. */
  async show() {
    await this.window.send('Target.activateTarget', { targetId: this.targetId });
    await until('the tab is in front', () => this.evaluate('document.visibilityState'), { accept: (seen) => seen === 'visible' });
  }

  async press(key) {
    const event = { key, ...KEYS[key] };
    await this.send('Input.dispatchKeyEvent', { type: event.text ? 'keyDown' : 'rawKeyDown', ...event });
    await this.send('Input.dispatchKeyEvent', { type: 'keyUp', ...event, text: undefined });
  }

  async play() {
    await this.press(' ');
    return this.until('the game is being played', ({ screen, framesReceived }) => screen === 'playing' && framesReceived > 0,
      { hopeless: ({ screen }) => screen === 'error', within: 15_000 });
  }
}
