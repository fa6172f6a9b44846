// A browser made of plain objects for spawnpoint.test.js: time moves only when told to, every
// request and socket is kept for inspection. Used by tests only.

export class FakeBrowser extends EventTarget {
  time = 1_800_000_000_000;
  timers = new Map();
  nextTimer = 1;
  requests = [];
  sockets = [];
  streams = [];
  beacons = [];
  storage = new Map();
  heldLocks;
  routes = []; // [method, RegExp, (body, match) => [status, body]], newest first

  constructor({ heldLocks = new Set(), locks = true } = {}) {
    super();
    this.heldLocks = heldLocks;
    this.Date = { now: () => this.time };
    this.Math = { random: () => 0.5 };
    this.crypto = globalThis.crypto;
    this.AbortController = AbortController;
    this.sessionStorage = {
      getItem: (key) => this.storage.get(key) ?? null,
      setItem: (key, value) => this.storage.set(key, value),
    };
    this.document = Object.assign(new EventTarget(), { visibilityState: 'visible' });
    this.navigator = {
      sendBeacon: (url, body) => this.beacons.push({ url, body: JSON.parse(body), raw: body }),
      ...(locks ? { locks: { request: (name, options, callback) => this.#lock(name, options, callback) } } : {}),
    };
    const browser = this;
    this.WebSocket = class {
      readyState = 0;
      protocol = '';
      sent = [];
      constructor(url, protocols) {
        Object.assign(this, { url, protocols });
        browser.sockets.push(this);
      }
      accept(protocol) {
        this.readyState = 1;
        this.protocol = protocol;
        this.onopen();
      }
      say(data) { this.onmessage({ data: typeof data === 'string' ? data : JSON.stringify(data) }); }
      drop(code, reason = '') {
        this.readyState = 3;
        this.onclose({ code, reason });
      }
      send(data) { this.sent.push(data); }
      close(code, reason) { this.closedWith = { code, reason }; }
    };
    this.EventSource = class {
      open = true;
      constructor(url) {
        this.url = url;
        browser.streams.push(this);
      }
      say(event) { if (this.open) this.onmessage({ data: JSON.stringify(event) }); }
      fail() { if (this.open) this.onerror({}); }
      close() { this.open = false; }
    };
  }

  #lock(name, { signal, ifAvailable }, callback) {
    if (ifAvailable) {
      if (this.heldLocks.has(name)) return Promise.resolve(callback(null));
      this.heldLocks.add(name);
      return Promise.resolve(callback({})).finally(() => this.heldLocks.delete(name));
    }
    if (this.heldLocks.has(name)) {
      return new Promise((_, reject) => { signal.addEventListener('abort', () => reject(signal.reason)); });
    }
    this.heldLocks.add(name);
    return callback({});
  }

  setTimeout(run, delay = 0) { return this.#timer({ run, at: this.time + delay }); }
  setInterval(run, every) { return this.#timer({ run, at: this.time + every, every }); }
  clearTimeout(id) { this.timers.delete(id); }
  clearInterval(id) { this.timers.delete(id); }
  #timer(timer) {
    this.timers.set(this.nextTimer, timer);
    return this.nextTimer++;
  }

  on(method, pattern, answer) { this.routes.unshift([method, pattern, answer]); }

  async fetch(url, { method, body, headers }) {
    const request = { method, url, headers, body: body === undefined ? undefined : JSON.parse(body), at: this.time };
    this.requests.push(request);
    const route = this.routes.find(([m, pattern]) => m === method && pattern.test(url));
    if (!route) throw new TypeError('no network');
    const [status, reply] = await route[2](request.body, request);
    return { ok: status < 400, status, headers: { get: () => null }, json: async () => structuredClone(reply) };
  }

  /** Lets all promises settle. */
  async settle() { for (let i = 0; i < 60; i += 1) await null; }

  /** Moves time, firing what falls due in order. */
  async pass(ms) {
    const end = this.time + ms;
    await this.settle();
    for (;;) {
      const due = [...this.timers].filter(([, { at }]) => at <= end).sort((a, b) => a[1].at - b[1].at)[0];
      if (!due) break;
      const [id, timer] = due;
      this.time = Math.max(this.time, timer.at);
      if (timer.every) timer.at += timer.every;
      else this.timers.delete(id);
      timer.run();
      await this.settle();
    }
    this.time = end;
  }

  sentTo(part) { return this.requests.filter(({ url }) => url.includes(part)); }
}
