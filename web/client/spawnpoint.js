// Spawnpoint's browser client: one file, no dependencies, no build step.
//
//   import { newGame, join, findMatch, gameMetrics } from '/client/spawnpoint.js';
//   const game = await newGame({ fleet: 'spice' });          // or join(sessionId, inviteCode)
//   game.on('open', () => game.send('hello'));               // the game server is listening
//   game.on('message', (data) => console.log(data));         // its frames, untouched
//   game.on('close', ({ code, reason }) => console.log(reason)); // final; it reconnects by itself
//   gameMetrics.setActive();                                 // heartbeats while somebody plays
//   addEventListener('keydown', () => gameMetrics.updateActivity());
//
// Session events: `open`, `message` (data), `phase` (a progress event), `event` (any of them),
// `reconnecting` {attempt, delay, code}, `warning` {reason, cullAt, secondsLeft} or null when it is
// lifted, `heartbeat` (the reply), `close` {code, reason}.
//
//   const ticket = await findMatch({ queue: 'spice' });      // or resumeMatch() after a reload
//   ticket.on('waiting', ({ position, estimate, online }) => console.log(position));
//   const game = await ticket.game;                          // rejects when it is lost or cancelled
//   await ticket.cancel();                                   // false: too late, there is a match

export const HEARTBEAT_MS = 5000;
const IDLE_TIMEOUT_MS = 5 * 60_000; // the platform's default; only stops our own heartbeats
const GIVE_UP_MS = 120_000; // of reconnecting without a single frame of the game
const RENEW_BEFORE_MS = 60_000; // before the token expires
const WARN_BEFORE_MS = 60_000; // the platform's first warning
const FIRST_EVENT_MS = 5000; // a stream that says nothing for so long is held back on the way
const LOOK_EVERY_MS = 20_000; // at a ticket while its stream is silent: a dead connection makes no sound
const POLL_S = 25; // a held question about a ticket: below the half minute at which proxies lose patience
const POLL_PAUSE_MS = 1000; // between answers that change nothing
// A browser opens six HTTP/1.1 connections to one host, for all of its tabs. Of tabs that wait, so many
// hold one (as a stream or a held question) and the others ask now and then, or no tab could load any more.
const HOLDING_TABS = 3;
const ASK_EVERY_MS = 2000;
const FORGOTTEN = ['ticket_lost', 'ticket_expired']; // why tickets go that had nothing wrong with them
const MAX_REJOINS = 3; // without having heard of the ticket in between
const LONGEST_TIMER_MS = 2 ** 31 - 1; // a longer setTimeout fires at once
const SUBPROTOCOLS = ['spawnpoint.progress', 'spawnpoint.v1'];
// Refusals that another name would not change.
const ABOUT_THE_GAME = ['invite_required', 'not_joinable', 'origin_not_allowed', 'host_not_allowed'];
// How a session that is over is told apart: the close codes the gateway uses for its reasons.
const END_CODES = { idle: 4408, max_duration: 4410, crashed: 4500, ended_by_server: 1000, start_failed: 1013 };
const IDENTITY_KEY = 'spawnpoint.identity';

/** A refused request: `code` is stable, `message` says what to do, `retryAfter` is seconds or null. */
export class SpawnpointError extends Error {
  constructor(status, problem, retryAfter) {
    super(problem.detail ?? problem.title ?? `the server answered ${status}`);
    this.status = status;
    this.code = problem.code ?? `http_${status}`;
    this.retryAfter = problem.retry_after ?? retryAfter ?? null;
  }
}

/**
 * Milliseconds to wait before connecting again after this close code, or null: do not.
 * The protocol's own complaints (1002..1010) would only repeat themselves; of our codes only 4429
 * (a limit) passes by waiting. 4409 above all must stop: reconnecting would steal back and forth.
 */
export function reconnectDelay(code, attempt, random) {
  if (code === 4429) return 5000 + Math.min(attempt, 5) * 2000 + random * 1000;
  const final = code === 1000 || code >= 3000 || [1002, 1003, 1007, 1008, 1009, 1010].includes(code);
  if (final) return null;
  const ceiling = Math.min(8000, 250 * 2 ** Math.min(attempt, 6));
  return ceiling / 2 + (random * ceiling) / 2; // jitter: a restart must not bring all back at once
}

/** Seconds, milliseconds or RFC 3339 to milliseconds since 1970; null if it is none of them. */
export function parseTime(value) {
  if (typeof value === 'number') return value < 1e11 ? value * 1000 : value;
  const parsed = typeof value === 'string' ? Date.parse(value) : NaN;
  return Number.isNaN(parsed) ? null : parsed;
}

class Emitter {
  #listeners = new Map();

  on(type, listener) {
    const all = this.#listeners.get(type) ?? new Set();
    this.#listeners.set(type, all.add(listener));
    return () => all.delete(listener);
  }

  emit(type, value) {
    for (const listener of this.#listeners.get(type) ?? []) listener(value);
  }
}

/**
 * A client of its own. `env` stands in for the browser in tests; `server` is the origin of the API
 * where it is not the page's own (a development server on another port).
 */
export function createClient({ env = globalThis, server = '' } = {}) {
  const now = () => env.Date.now();
  const randomId = () => Array.from(env.crypto.getRandomValues(new Uint8Array(12)),
    (byte) => byte.toString(16).padStart(2, '0')).join('');

  const pause = (ms) => new Promise((done) => { env.setTimeout(done, ms); });

  async function api(method, path, body, bearer, { headers = {}, signal } = {}) {
    const response = await env.fetch(server + path, {
      method,
      signal,
      credentials: 'omit',
      headers: {
        ...(body === undefined ? {} : { 'Content-Type': 'application/json' }),
        ...(bearer ? { Authorization: `Bearer ${bearer}` } : {}),
        ...headers,
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const data = (await response.json().catch(() => null)) ?? {};
    if (!response.ok) {
      throw new SpawnpointError(response.status, data, Number(response.headers?.get('Retry-After')) || null);
    }
    return data;
  }

  // --- Who is this tab? ----------------------------------------------------------------------
  // One identity a tab: kept in sessionStorage, so a reload finds its game again. But "duplicate
  // tab" and window.open copy sessionStorage, so the identity is held by a Web Lock as well: a copy
  // finds the lock taken and takes a new identity.
  let identity;
  const whoAmI = () => (identity ??= findIdentity());

  async function findIdentity() {
    let me = null;
    try {
      me = JSON.parse(env.sessionStorage.getItem(IDENTITY_KEY));
    } catch { /* no storage, or nonsense in it: a new identity */ }
    if (!me?.tab || !(await claim(me.tab, patience()))) {
      const tab = randomId();
      me = { tab, playerId: `guest-${tab}`, bearer: null };
      await claim(tab, null); // nobody else can have it: a slow machine must not leave it unheld
    }
    remember(me);
    return me;
  }

  function remember(me) {
    try {
      env.sessionStorage.setItem(IDENTITY_KEY, JSON.stringify(me));
    } catch { /* private mode: the identity lives as long as the page */ }
  }

  // A reloaded page may come before the old one's lock is gone: it waits, as long as a busy machine may
  // take. A duplicate, whose original goes on living, waits in vain, but only once.
  const patience = () => (env.performance?.getEntriesByType?.('navigation')[0]?.type === 'reload' ? 3000 : 800);

  function claim(tab, ms) {
    const locks = env.navigator?.locks;
    if (!locks) return claimByChannel(tab); // plain http off loopback has no Web Locks
    const stop = new env.AbortController();
    if (ms !== null) env.setTimeout(() => stop.abort(), ms);
    return new Promise((resolve) => {
      locks.request(`spawnpoint.tab.${tab}`, { signal: stop.signal }, () => {
        resolve(true);
        return new Promise(() => {}); // held until the page is gone
      }).catch(() => resolve(false));
    });
  }

  let channel;
  function claimByChannel(tab) {
    if (!env.BroadcastChannel) return Promise.resolve(true);
    channel ??= new env.BroadcastChannel('spawnpoint.tab');
    return new Promise((resolve) => {
      channel.onmessage = ({ data }) => { if (data.taken === tab) resolve(false); };
      channel.postMessage({ ask: tab });
      env.setTimeout(() => {
        resolve(true);
        channel.onmessage = ({ data }) => { if (data.ask === tab) channel.postMessage({ taken: tab }); };
      }, 150);
    });
  }

  // --- Getting a game ------------------------------------------------------------------------
  // Sent again with the same key when the network drops the reply: never two games for one wish.
  async function ask(path, fields) {
    const me = await whoAmI();
    const headers = { 'Idempotency-Key': randomId() };
    const attempt = (body) => api('POST', path, body, me.bearer, { headers });
    let body = { playerId: me.playerId, ...fields };
    let refusal = null;
    for (let tries = 1; ; tries += 1) {
      try {
        const reply = await attempt(body);
        recognise(reply, me, body.playerId);
        return reply;
      } catch (error) {
        const network = !(error instanceof SpawnpointError);
        if (network && tries < 3) {
          await pause(400 * tries);
        } else if ([401, 403].includes(error.status) && !refusal && !ABOUT_THE_GAME.includes(error.code)) {
          // Off loopback a name that this page made up, or a guest of yesterday, counts for nothing:
          // ask to be given one.
          refusal = error;
          me.bearer = null;
          body = { ...fields };
          headers['Idempotency-Key'] = randomId();
        } else {
          throw refusal ?? error;
        }
      }
    }
  }

  function recognise(reply, me, claimed) {
    // A guest is known again by the token of their last session or ticket: it names them and is signed.
    if (reply.player_id && (me.bearer || claimed !== reply.player_id)) me.bearer = reply.token ?? me.bearer;
    else me.bearer = null;
    me.playerId = reply.player_id ?? me.playerId;
    remember(me);
  }

  function adopt(reply) {
    metrics.session?.leave();
    const session = new Session(reply);
    metrics.session = session;
    if (session.wsUrl) session.connect(); // a TCP or UDP game has none
    return session;
  }

  const newGame = async (options = {}) => adopt(await ask('/api/new-game', options));
  const join = async (sessionId, invite) =>
    adopt(await ask(`/api/sessions/${encodeURIComponent(sessionId)}/players`, invite ? { invite } : {}));

  // --- Getting an opponent -------------------------------------------------------------------
  /**
   * `options`: `queue` (a fleet's name will do), `latencies`. `fresh`: not back into a game that this
   * player is in and that no queue led to; that one is ended, or left when others are in it.
   */
  async function findMatch({ fresh = false, ...options } = {}) {
    let reply = await ask('/api/match/join', options);
    if (fresh && reply.status === 'matched' && !reply.ticket_id) {
      const [session, player] = [reply.session_id, reply.player_id].map(encodeURIComponent);
      if (reply.players.length > 1) await api('DELETE', `/api/sessions/${session}/players/${player}`, undefined, reply.token);
      else await api('POST', `/api/match/${session}/end`, {}, reply.token);
      reply = await ask('/api/match/join', options);
    }
    return new Ticket(options, reply, await whoAmI());
  }

  /** The ticket that this tab had before it was reloaded, or null. Nothing is asked when it had none. */
  async function resumeMatch() {
    const me = await whoAmI();
    if (!me.ticket) return null;
    const { options, queue, token } = me.ticket;
    let reply = null;
    try {
      reply = await api('GET', statusPath(me, queue), undefined, token);
    } catch (error) {
      // No answer is no verdict: whoever waits goes on trying. A refusal is one.
      if (!(error instanceof SpawnpointError) || error.status >= 500) reply = { status: 'queued', queue, token };
    }
    if (['queued', 'matched'].includes(reply?.status)) return new Ticket(options, reply, me);
    delete me.ticket;
    remember(me);
    return null;
  }

  const statusPath = ({ playerId }, queue, wait = 0) =>
    `/api/match/status?${new URLSearchParams({ player_id: playerId, ...(queue && { queue }), ...(wait > 0 && { wait }) })}`;

  // Waits for a match: by the lobby's event stream, and by held questions where that does not come through.
  class Ticket extends Emitter {
    #options;
    #me;
    #token = null;
    #queue = null; // as the server calls it
    #stream = null;
    #timer = null; // while streaming: when to look ourselves
    #looking = null; // 'now', or 'again' when something happened meanwhile
    #polling = null; // AbortController of the question that is out
    #joinedAt = now();
    #heardAt = now();
    #rejoins = 0;
    #over = false;
    #holds = true; // may keep a connection open
    #release = () => {};
    #settle;

    constructor(options, reply, me) {
      super();
      this.#options = options;
      this.#me = me;
      this.id = null;
      /** What is known: `position` and `estimate` (seconds from now) or null, `online` false while the server is not reached. */
      this.state = { position: null, estimate: null, online: true };
      this.game = new Promise((resolve, reject) => { this.#settle = { resolve, reject }; });
      this.game.catch(() => {}); // whoever looks at it hears of it
      this.#take(reply);
      if (!this.#over) this.#follow();
    }

    /** Milliseconds since the player joined the queue. */
    get waited() { return now() - this.#joinedAt; }

    /** Leaves the queue. False when a match came first: then `game` has it. */
    async cancel() {
      if (this.#over) return false;
      try {
        const reply = await api('DELETE', '/api/match/join', { player_id: this.#me.playerId, queue: this.#queue ?? undefined }, this.#token);
        if (reply.status === 'matched') this.#take(reply);
      } catch (error) {
        // Unreached, the ticket ends by itself when nobody asks after it; 409: its match is being made.
        if (error.status === 409) return false;
      }
      if (this.#over) return false;
      this.#finish();
      this.#settle.reject(new SpawnpointError(0, { code: 'cancelled', title: 'no longer looking for a match' }));
      return true;
    }

    #take(reply, joined = false) {
      if (this.#over) return;
      this.#heardAt = now();
      this.#token = reply.token ?? this.#token;
      this.#queue = reply.queue ?? this.#queue;
      if (reply.status === 'matched') {
        this.#finish();
        recognise(reply, this.#me, this.#me.bearer ? null : this.#me.playerId);
        this.#settle.resolve(adopt(reply));
      } else if (reply.status === 'queued') {
        if (!joined) this.#rejoins = 0;
        this.id = reply.ticket_id ?? this.id;
        if (reply.waited_s != null) this.#joinedAt = now() - reply.waited_s * 1000;
        if (this.#me.bearer) this.#me.bearer = this.#token;
        this.#me.ticket = { options: this.#options, queue: this.#queue, token: this.#token };
        remember(this.#me);
        this.#show({ online: true, position: reply.position ?? this.state.position, estimate: reply.estimate_s ?? null });
      } else if (reply.code && !FORGOTTEN.includes(reply.code)) this.#fail(new SpawnpointError(409, reply)); // a new ticket would meet the same
      else this.#rejoin();
    }

    #show(change) {
      this.state = { ...this.state, ...change };
      this.emit('waiting', this.state);
    }

    // The server was started anew, or took us for gone: the page is here, so join again.
    async #rejoin() {
      this.#quiet();
      this.#rejoins += 1;
      try {
        if (this.#rejoins > MAX_REJOINS) throw new SpawnpointError(409, { code: 'lost', title: 'the queue keeps losing this ticket' });
        if (this.#rejoins > 1) await pause(reconnectDelay(1006, this.#rejoins, env.Math.random()));
        if (this.#over) return;
        this.#take(await ask('/api/match/join', this.#options), true);
        this.#poll();
      } catch (error) {
        this.#fail(error);
      }
    }

    async #follow() {
      this.#holds = await this.#mayHold();
      if (this.#over) this.#release();
      else if (this.#holds && env.EventSource) this.#listen();
      else this.#poll();
    }

    /** Whether few enough tabs hold a connection; if so this one counts as well until `#release`. */
    async #mayHold() {
      const { locks } = env.navigator ?? {};
      if (!locks) return true; // nothing to count by
      const take = (place) => new Promise((resolve) => {
        locks.request(`spawnpoint.lobby.${place}`, { ifAvailable: true }, (lock) => {
          resolve(lock !== null);
          return lock && new Promise((done) => { this.#release = done; });
        }).catch(() => resolve(true));
      });
      for (let place = 0; place < HOLDING_TABS; place += 1) if (await take(place)) return true;
      return false;
    }

    #listen() {
      const token = this.#token ? `&token=${encodeURIComponent(this.#token)}` : '';
      const stream = new env.EventSource(`${server}/api/events?player_id=${encodeURIComponent(this.#me.playerId)}${token}`);
      this.#stream = stream;
      this.#lookIn(FIRST_EVENT_MS, () => this.#poll());
      stream.onmessage = ({ data }) => {
        const event = JSON.parse(data);
        this.#heardAt = now();
        this.#lookIn(LOOK_EVERY_MS, () => this.#look());
        if (event.type === 'queued' && event.ticket_id) this.#take({ ...event, status: 'queued' });
        else if (event.type !== 'queued') this.#look(); // matched, lost, or a game of ours from elsewhere: the status has it whole
      };
      stream.onerror = () => this.#poll();
    }

    #lookIn(ms, look) {
      env.clearTimeout(this.#timer);
      this.#timer = env.setTimeout(look, ms);
    }

    // One question at a time, however many events call for it: a match brings several at once.
    async #look() {
      const stream = this.#stream;
      this.#lookIn(LOOK_EVERY_MS, () => this.#look());
      if (this.#looking) {
        this.#looking = 'again';
        return;
      }
      try {
        do {
          this.#looking = 'now';
          this.#take(await api('GET', statusPath(this.#me, this.#queue), undefined, this.#token));
        } while (this.#looking === 'again' && stream === this.#stream && !this.#over);
      } catch {
        if (stream && stream === this.#stream) this.#poll(); // which knows what to make of it
      } finally {
        this.#looking = null;
      }
    }

    // For the rest of the wait: what broke the stream would break the next one.
    async #poll() {
      if (this.#over || this.#polling) return;
      this.#quiet();
      const polling = new env.AbortController();
      this.#polling = polling;
      const ours = () => this.#polling === polling && !this.#over;
      for (let failures = 0; ours();) {
        const asked = now();
        try {
          const reply = await api('GET', statusPath(this.#me, this.#queue, this.#holds ? POLL_S : 0), undefined, this.#token, { signal: polling.signal });
          if (!ours()) return;
          failures = 0;
          this.#take(reply);
          if (!this.#holds) await pause(ASK_EVERY_MS);
          else if (ours() && now() - asked < POLL_PAUSE_MS) await pause(POLL_PAUSE_MS);
        } catch (error) {
          if (!ours()) return;
          if (error.status === 401) return this.#rejoin(); // the token is too old: joining again brings a new one
          if (error.status < 500 && error.status !== 429) return this.#fail(error);
          if (now() - this.#heardAt > GIVE_UP_MS) return this.#fail(error);
          failures += 1;
          this.#show({ online: false });
          await pause(reconnectDelay(1006, failures, env.Math.random()));
        }
      }
    }

    #quiet() {
      this.#stream?.close();
      this.#stream = null;
      this.#polling?.abort();
      this.#polling = null;
      env.clearTimeout(this.#timer);
    }

    #finish() {
      this.#over = true;
      this.#quiet();
      this.#release();
      delete this.#me.ticket;
      remember(this.#me);
    }

    #fail(error) {
      if (this.#over) return;
      this.#finish();
      this.#settle.reject(error);
    }
  }

  // --- One session ---------------------------------------------------------------------------
  class Session extends Emitter {
    #socket = null;
    #attempt = 0;
    #retry = null;
    #renewal = null;
    #lastFrameAt = now();
    #renewedFor4401 = false;
    #lookout = null; // for the end, while no heartbeat asks
    closed = null;
    reconnects = 0;

    constructor(reply) {
      super();
      this.reply = reply;
      this.id = reply.session_id;
      this.playerId = reply.player_id;
      this.url = reply.url ?? null; // for an HTTP game: what a browser opens
      this.shareUrl = reply.share_url ?? null; // only for games that /play plays
      this.invite = reply.invite ?? null;
      this.phase = reply.phase ?? 'starting';
      this.generation = reply.generation ?? 1;
      this.warning = null;
      this.#useToken(reply);
    }

    /** False when there is no open game to send to. */
    send(data) {
      const open = this.#socket?.readyState === 1 && this.phase === 'running';
      if (open) this.#socket.send(data);
      return open;
    }

    connect() {
      let progress = false;
      let opened = false;
      this.#retry = null;
      const socket = new env.WebSocket(this.wsUrl, SUBPROTOCOLS);
      this.#socket = socket;
      const running = () => {
        this.phase = 'running';
        this.emit('open');
      };
      socket.onopen = () => {
        opened = true;
        progress = socket.protocol === 'spawnpoint.progress';
        if (!progress) running();
      };
      socket.onmessage = ({ data }) => {
        if (!progress) {
          this.#attempt = 0; // not at open: a server that accepts and drops must not be hammered
          this.#lastFrameAt = now();
          this.#renewedFor4401 = false;
          this.emit('message', data);
          return;
        }
        const event = JSON.parse(data);
        this.generation = event.generation ?? this.generation;
        if (event.type === 'phase' || (event.type === 'hello' && event.phase && event.phase !== 'running')) {
          this.phase = event.phase;
          this.emit('phase', event);
        }
        this.emit('event', event);
        if (event.type === 'phase' && event.phase === 'running') {
          progress = false;
          running();
        }
      };
      socket.onclose = ({ code, reason }) => {
        if (this.#socket === socket) this.#closed(code, reason, opened);
      };
    }

    async #closed(code, reason, opened) {
      if (this.closed) return;
      this.#socket = null;
      if (this.phase === 'running') this.phase = 'reconnecting';
      if (code === 4401 && !this.#renewedFor4401 && (await this.#renew())) {
        this.#renewedFor4401 = true;
        this.#again(code, 0);
        return;
      }
      // A refused handshake is a bare 1006: ask the API what it means.
      if (!opened && this.#attempt >= 2) {
        const verdict = await this.#ask();
        if (verdict) return this.#finish(...verdict);
      }
      if (this.closed) return; // somebody left while we asked
      const delay = reconnectDelay(code, this.#attempt, env.Math.random());
      if (delay === null || reason === 'start_failed') this.#finish(code, reason);
      else if (now() - this.#lastFrameAt > GIVE_UP_MS) this.#finish(code, 'unreachable');
      else this.#again(code, delay);
    }

    #again(code, delay) {
      this.#attempt += 1;
      this.reconnects += 1;
      this.emit('reconnecting', { attempt: this.#attempt, delay, code });
      this.#retry = env.setTimeout(() => this.connect(), delay);
    }

    #finish(code, reason) {
      if (this.closed) return;
      this.closed = { code, reason };
      this.phase = 'ended';
      env.clearTimeout(this.#retry);
      env.clearTimeout(this.#renewal);
      env.clearTimeout(this.#lookout);
      if (metrics.session === this) metrics.setInactive(false);
      this.emit('close', this.closed);
    }

    /** [code, reason] when the session is over or not ours, null when trying again makes sense. */
    async #ask() {
      try {
        const { phase, end } = await api('GET', this.path(), undefined, this.token);
        return phase === 'ended' ? [END_CODES[end?.reason] ?? 4411, end?.reason ?? 'ended'] : null;
      } catch ({ status }) {
        return { 401: [4401, 'invalid_credentials'], 403: [4403, 'forbidden'], 404: [4404, 'session_not_found'] }[status] ?? null;
      }
    }

    path(rest = '') {
      return `/api/sessions/${encodeURIComponent(this.id)}${rest}`;
    }

    #useToken({ token, token_expires_at, wsUrl }) {
      this.token = token ?? this.token;
      if (wsUrl) this.wsUrl = wsUrl;
      else if (token) this.wsUrl = this.wsUrl.replace(/([?&]token=)[^&#]*/, `$1${encodeURIComponent(token)}`);
      const expires = parseTime(token_expires_at);
      env.clearTimeout(this.#renewal);
      if (expires !== null) this.#renewIn(Math.max(1000, expires - now() - RENEW_BEFORE_MS));
    }

    #renewIn(ms) {
      const step = Math.min(ms, LONGEST_TIMER_MS);
      this.#renewal = env.setTimeout(() => (step < ms ? this.#renewIn(ms - step) : this.#renew()), step);
    }

    async #renew() {
      try {
        this.#useToken(await api('POST', this.path('/token'), {}, this.token));
        return true;
      } catch (error) {
        const hopeless = [401, 403, 404].includes(error.status) || this.closed;
        if (!hopeless) this.#renewIn(15_000);
        return false;
      }
    }

    /** What a "keep playing" button calls: tells the platform that somebody is here. */
    async keepPlaying() {
      const limit = this.warning?.reason === 'max_duration';
      if (limit) this.setWarning(await api('POST', this.path('/extend'), {}, this.token));
      metrics.lastActivity = now();
      if (metrics.dozing) metrics.setActive(); // between games the heartbeats stay off: one will do
      else await metrics.beat('active');
    }

    setWarning({ warning, cull_at, cull_in_ms, cull_reason }) {
      const before = this.warning;
      const cullAt = parseTime(warning?.cull_at ?? cull_at);
      this.cullAt = cullAt;
      this.cullReason = cull_reason;
      // The server's own figure where it gives one: the clocks need not agree.
      const left = cull_in_ms ?? (cullAt === null ? null : cullAt - now());
      const secondsLeft = left === null ? null : Math.max(0, Math.round(left / 1000));
      this.warning = warning ? { reason: warning.reason ?? cull_reason, cullAt, secondsLeft } : null;
      if (this.warning || before) this.emit('warning', this.warning);
      env.clearTimeout(this.#lookout);
      const ahead = left === null || warning ? 0 : left - WARN_BEFORE_MS;
      if (ahead > 0) this.#lookout = env.setTimeout(() => this.#look(), Math.min(ahead, LONGEST_TIMER_MS));
    }

    // Without heartbeats (game over, nobody pressed anything) no reply would bring the warning; the
    // deadline of the last one tells when to look. Looking is not activity.
    async #look() {
      if (this.closed) return;
      try {
        const { cull_at, cull_reason } = await api('GET', this.path(), undefined, this.token);
        const near = cull_at && parseTime(cull_at) - now() <= WARN_BEFORE_MS + 1000;
        this.setWarning({ cull_at, cull_reason, warning: near ? { reason: cull_reason, cull_at } : null });
      } catch { /* offline or over: the socket knows better */ }
    }

    /** Leaves without ending the session for the others. */
    leave() {
      const socket = this.#socket;
      this.#finish(1000, 'left');
      socket?.close(1000, 'left');
    }
  }

  // --- Heartbeats ----------------------------------------------------------------------------
  const metrics = {
    session: null,
    sent: 0, // heartbeats and beacons since the page was loaded
    timer: null,
    period: HEARTBEAT_MS, // between heartbeats: the default until the server says how often it wants to hear
    startedAt: 0,
    lastActivity: 0,
    lastBeat: { at: 0, idleTime: 0, status: 'inactive' },
    dozing: false, // stopped by idleness, not by the game: the next input starts again

    /** The game began (or began again). Twice is once. */
    setActive() {
      if (!metrics.session || metrics.session.closed) return;
      metrics.lastActivity = now();
      metrics.dozing = false;
      if (metrics.timer !== null) return;
      metrics.startedAt = now();
      metrics.timer = env.setInterval(() => metrics.tick(), metrics.period);
      metrics.beat('active');
    },

    /** As often as the fleet is set to ask (`heartbeat`); never more than once a second. */
    keepTo(seconds) {
      const period = Math.max(1000, seconds * 1000);
      if (!Number.isFinite(period) || period === metrics.period) return;
      metrics.period = period;
      if (metrics.timer === null) return;
      env.clearInterval(metrics.timer);
      metrics.timer = env.setInterval(() => metrics.tick(), period);
    },

    /** The game is over. `tell` false where the server knows already. */
    setInactive(tell = true) {
      if (metrics.timer === null) return;
      env.clearInterval(metrics.timer);
      metrics.timer = null;
      if (tell) metrics.beat('inactive');
    },

    /** Somebody pressed, clicked or touched. Cheap: call it on every input. */
    updateActivity() {
      metrics.lastActivity = now();
      if (metrics.dozing) metrics.setActive();
      if (metrics.timer === null) return;
      const { at, idleTime, status } = metrics.lastBeat;
      const stale = status !== 'active' || idleTime >= metrics.period || metrics.session.warning?.reason === 'idle';
      if (stale && now() - at >= 1000) metrics.beat('active'); // at most one extra a second
    },

    tick() {
      const idle = now() - metrics.lastActivity;
      const { cullAt, cullReason } = metrics.session;
      if (cullReason === 'max_duration' && cullAt && now() >= cullAt) metrics.setInactive();
      else if (idle >= IDLE_TIMEOUT_MS) {
        metrics.setInactive();
        metrics.dozing = true;
      } else metrics.beat('active');
    },

    body(status) {
      const idleTime = Math.max(0, now() - metrics.lastActivity);
      metrics.sent += 1;
      metrics.lastBeat = { at: now(), idleTime, status };
      return JSON.stringify({
        event: 'game_session_heartbeat',
        sessionId: metrics.session.id,
        timestamp: now(),
        status,
        idleTime,
        sessionDuration: now() - metrics.startedAt,
        token: metrics.session.token,
      });
    },

    async beat(status) {
      const { session } = metrics;
      try {
        const response = await env.fetch(server + session.path('/heartbeat'), {
          method: 'POST', credentials: 'omit', headers: { 'Content-Type': 'application/json' }, body: metrics.body(status),
        });
        if (!response.ok) return; // the socket's close code will say why
        const reply = await response.json();
        metrics.keepTo(reply.next_heartbeat_s);
        session.setWarning(reply);
        session.emit('heartbeat', reply);
      } catch { /* offline: the next one is five seconds away */ }
    },

    // Survives the page: the token is in the body because a beacon has no headers. Never "end":
    // a reload fires the same events, and the player comes back.
    beacon() {
      if (metrics.timer === null || metrics.lastBeat.status === 'inactive') return;
      env.navigator.sendBeacon?.(server + metrics.session.path('/heartbeat'), metrics.body('inactive'));
    },
  };

  env.document?.addEventListener('visibilitychange', () => {
    if (env.document.visibilityState !== 'visible') return metrics.beacon(); // a phone's last word
    const { sent } = metrics;
    metrics.updateActivity();
    if (metrics.timer !== null && metrics.sent === sent) metrics.beat('active');
  });
  for (const leaving of ['pagehide', 'beforeunload']) env.addEventListener?.(leaving, () => metrics.beacon());

  const { setActive, setInactive, updateActivity } = metrics;
  const gameMetrics = { setActive, setInactive: () => setInactive(), updateActivity, get sent() { return metrics.sent; } };
  return { newGame, join, findMatch, resumeMatch, gameMetrics, identity: whoAmI };
}

export const { newGame, join, findMatch, resumeMatch, gameMetrics, identity } = createClient();
