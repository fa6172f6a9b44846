import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FakeBrowser } from './fake-browser.js';
import { createClient, parseTime, reconnectDelay, SpawnpointError } from './spawnpoint.js';

const ID = '01990000-0000-7000-8000-000000000001';

function reply(browser, over = {}) {
  return {
    session_id: ID, fleet: 'spice', phase: 'starting', ready: false, generation: 1,
    wsUrl: `ws://h/session/${ID}?token=first`, share_url: `http://h/play?join=${ID}&invite=c`,
    token: 'first', token_expires_at: new Date(browser.time + 3_600_000).toISOString(),
    player_id: 'guest-x', players: ['guest-x'], cull_at: null, cull_reason: null, ...over,
  };
}

function world(options) {
  const browser = new FakeBrowser(options);
  browser.on('POST', /\/api\/new-game$/, (body) => [201, reply(browser, { player_id: body.playerId })]);
  browser.on('POST', /\/heartbeat$/, () => [200, { cull_at: null, cull_reason: null, warning: null }]);
  return { browser, client: createClient({ env: browser }) };
}

/** In the game: the socket accepted, the game's frames flow. */
async function playing(options) {
  const { browser, client } = world(options);
  const game = await client.newGame();
  const socket = browser.sockets[0];
  socket.accept('spawnpoint.progress');
  socket.say({ v: 1, id: 1, type: 'phase', phase: 'running', generation: 1 });
  return { browser, client, game, socket };
}

describe('starting', () => {
  it('offers the progress subprotocol and hands out frames only after running', async () => {
    const { browser, client } = world();
    const game = await client.newGame({ fleet: 'spice' });
    const [socket] = browser.sockets;
    const seen = [];
    for (const type of ['phase', 'open', 'message']) game.on(type, (value) => seen.push([type, value?.phase ?? value]));
    assert.deepEqual(socket.protocols, ['spawnpoint.progress', 'spawnpoint.v1']);
    assert.equal(browser.requests[0].body.fleet, 'spice');
    socket.accept('spawnpoint.progress');
    socket.say({ type: 'phase', phase: 'starting' });
    assert.equal(game.send('too early'), false);
    socket.say({ type: 'phase', phase: 'running', generation: 3 });
    socket.say('{"t":"hello"}');
    assert.deepEqual(seen, [['phase', 'starting'], ['phase', 'running'], ['open', undefined], ['message', '{"t":"hello"}']]);
    assert.equal(game.generation, 3);
    assert.equal(game.send('now'), true);
    assert.deepEqual(socket.sent, ['now']);
  });

  it('works with a gateway that chose the plain subprotocol', async () => {
    const { browser, client } = world();
    const game = await client.newGame();
    let data;
    game.on('message', (value) => { data = value; });
    browser.sockets[0].accept('spawnpoint.v1');
    browser.sockets[0].say('frame');
    assert.equal(data, 'frame');
  });

  it('asks again with the same key when the network drops the reply', async () => {
    const { browser, client } = world();
    let calls = 0;
    browser.on('POST', /new-game$/, (body) => {
      calls += 1;
      if (calls < 3) throw new TypeError('dropped');
      return [201, reply(browser, { player_id: body.playerId })];
    });
    const wish = client.newGame();
    await browser.pass(5000);
    await wish;
    const keys = new Set(browser.sentTo('new-game').map(({ headers }) => headers['Idempotency-Key']));
    assert.deepEqual([calls, keys.size], [3, 1]);
  });

  it('takes the identity that the server mints for guests', async () => {
    const { browser, client } = world();
    browser.on('POST', /new-game$/, (body) => (body.playerId
      ? [401, { code: 'unauthorized', title: 'who?' }]
      : [201, reply(browser, { player_id: 'guest-minted', token: 'g1' })]));
    const game = await client.newGame();
    assert.equal(game.playerId, 'guest-minted');
    assert.equal(JSON.parse(browser.storage.get('spawnpoint.identity')).bearer, 'g1');
    browser.on('POST', /players$/, () => [201, reply(browser)]);
    await client.join(ID, 'code');
    const asked = browser.sentTo('/players')[0];
    assert.deepEqual(asked.body, { playerId: 'guest-minted', invite: 'code' });
    assert.equal(asked.headers.Authorization, 'Bearer g1');
  });

  it('says why a game cannot be joined, not that a name is missing', async () => {
    const { browser, client } = world();
    const codes = { c1: 'invite_required', c2: 'forbidden' };
    browser.on('POST', /players$/, (body) => (body.playerId
      ? [403, { code: codes[body.invite], title: 'no' }] : [400, { code: 'missing_field' }]));
    for (const [invite, code] of Object.entries(codes)) {
      await assert.rejects(client.join(ID, invite), (error) => error.code === code);
    }
    assert.equal(browser.sentTo('/players').length, 3);
  });

  it('throws a refusal with its code', async () => {
    const { browser, client } = world();
    browser.on('POST', /new-game$/, () => [503, { code: 'queue_full', detail: 'Come back.', retry_after: 7 }]);
    await assert.rejects(client.newGame(), (error) => {
      assert.ok(error instanceof SpawnpointError);
      assert.deepEqual([error.code, error.retryAfter, error.message], ['queue_full', 7, 'Come back.']);
      return true;
    });
  });
});

describe('identity', () => {
  it('survives a reload and is not shared by a duplicated tab', async () => {
    const first = world();
    const { playerId } = await first.client.identity();
    const stored = first.browser.storage;

    const reloaded = new FakeBrowser();
    reloaded.storage = new Map(stored);
    assert.equal((await createClient({ env: reloaded }).identity()).playerId, playerId);

    const copy = new FakeBrowser({ heldLocks: first.browser.heldLocks });
    copy.storage = new Map(stored);
    const wish = createClient({ env: copy }).identity();
    await copy.pass(700);
    assert.equal(copy.heldLocks.size, 1, 'a reload may be slow: no verdict yet');
    await copy.pass(200);
    assert.notEqual((await wish).playerId, playerId);
    assert.match((await wish).playerId, /^guest-[0-9a-f]{24}$/);
  });

  it('a new identity is held however long the browser takes to give the lock', async () => {
    const slow = new FakeBrowser();
    const { request } = slow.navigator.locks;
    slow.navigator.locks.request = async (name, options, callback) => {
      await new Promise((done) => { slow.setTimeout(done, 10_000); });
      options.signal?.throwIfAborted();
      return request(name, options, callback);
    };
    const wish = createClient({ env: slow }).identity();
    await slow.pass(11_000);
    const { playerId } = await wish;
    assert.deepEqual([...slow.heldLocks], [`spawnpoint.tab.${playerId.replace('guest-', '')}`]);
  });

  it('tells duplicates apart by a channel where there are no locks', async () => {
    const channels = [];
    class Channel {
      constructor() { channels.push(this); }
      postMessage(data) { for (const other of channels) if (other !== this) other.onmessage?.({ data }); }
    }
    const tab = async (storage) => {
      const browser = new FakeBrowser({ locks: false });
      browser.BroadcastChannel = Channel;
      browser.storage = new Map(storage);
      const wish = createClient({ env: browser }).identity();
      await browser.pass(1000);
      return { me: await wish, storage: browser.storage };
    };
    const first = await tab();
    const copy = await tab(first.storage);
    assert.notEqual(copy.me.playerId, first.me.playerId);
  });
});

describe('reconnecting', () => {
  it('does so by close code', () => {
    for (const code of [1001, 1006, 1012, 1013, 4429]) assert.notEqual(reconnectDelay(code, 0, 0.5), null, code);
    for (const code of [1000, 1002, 1009, 4401, 4403, 4404, 4408, 4409, 4410, 4411, 4500]) {
      assert.equal(reconnectDelay(code, 0, 0.5), null, code);
    }
    const delays = [0, 1, 2, 3, 9].map((attempt) => reconnectDelay(1006, attempt, 1));
    assert.deepEqual(delays, [250, 500, 1000, 2000, 8000]);
    assert.equal(reconnectDelay(1006, 0, 0), 125);
    assert.ok(reconnectDelay(4429, 0, 0) >= 5000);
  });

  it('comes back after a crash and backs off until a frame arrives', async () => {
    const { browser, game, socket } = await playing();
    const seen = [];
    game.on('reconnecting', ({ code, delay }) => seen.push([code, delay]));
    socket.drop(1012);
    await browser.pass(1000);
    assert.equal(browser.sockets.length, 2);
    browser.sockets[1].accept('spawnpoint.v1');
    browser.sockets[1].drop(1006);
    await browser.settle();
    assert.deepEqual(seen, [[1012, 187.5], [1006, 375]]);
    await browser.pass(1000);
    browser.sockets[2].accept('spawnpoint.v1');
    browser.sockets[2].say('frame');
    browser.sockets[2].drop(1006);
    await browser.settle();
    assert.equal(seen[2][1], 187.5);
    assert.equal(game.reconnects, 3);
  });

  it('stops when another tab took over and when the game is over', async () => {
    for (const code of [4409, 1000, 4410]) {
      const { browser, game, socket } = await playing();
      let ends = 0;
      game.on('close', () => { ends += 1; });
      socket.drop(code, 'why');
      await browser.pass(60_000);
      assert.deepEqual([browser.sockets.length, ends, game.closed], [1, 1, { code, reason: 'why' }]);
    }
  });

  it('asks what a refused handshake means', async () => {
    const { browser, game, socket } = await playing();
    browser.on('GET', new RegExp(`/api/sessions/${ID}$`), () => [404, { code: 'session_not_found' }]);
    socket.drop(1006);
    for (let i = 1; i < 4 && !game.closed; i += 1) {
      await browser.pass(5000);
      browser.sockets[i]?.drop(1006);
    }
    await browser.settle();
    assert.equal(game.closed.code, 4404);
  });

  it('says what ended a session that it finds over, and a failed start is final', async () => {
    const { browser, game, socket } = await playing();
    browser.on('GET', new RegExp(`/api/sessions/${ID}$`), () => [200, { phase: 'ended', end: { reason: 'idle' } }]);
    socket.drop(1006);
    for (let i = 1; i < 4 && !game.closed; i += 1) {
      await browser.pass(5000);
      browser.sockets[i]?.drop(1006);
    }
    await browser.settle();
    assert.deepEqual(game.closed, { code: 4408, reason: 'idle' });
    const second = await playing();
    second.socket.drop(1013, 'start_failed');
    await second.browser.settle();
    assert.equal(second.game.closed.code, 1013);
  });

  it('gives up on a server that stays away', async () => {
    const { browser, game, socket } = await playing();
    socket.drop(1006);
    for (let i = 1; i < 60 && !game.closed; i += 1) {
      await browser.pass(8000);
      browser.sockets[i]?.drop(1006);
      await browser.settle();
    }
    assert.deepEqual(game.closed, { code: 1006, reason: 'unreachable' });
  });

  it('renews the token before it expires, and once when it is refused', async () => {
    const { browser, game, socket } = await playing();
    browser.on('POST', /\/token$/, (_, { headers }) => {
      assert.match(headers.Authorization, /^Bearer (first|second)$/);
      return [200, { token: 'second', token_expires_at: new Date(browser.time + 7_200_000).toISOString() }];
    });
    await browser.pass(3_600_000 - 61_000);
    assert.equal(browser.sentTo('/token').length, 0);
    await browser.pass(2000);
    assert.equal(game.token, 'second');
    socket.drop(4401, 'token');
    await browser.pass(100);
    assert.equal(browser.sockets[1].url, `ws://h/session/${ID}?token=second`);
    browser.sockets[1].drop(4401, 'token');
    await browser.pass(10_000);
    assert.equal(game.closed.code, 4401);
    assert.equal(browser.sentTo('/token').length, 2);
  });
});

describe('heartbeats', () => {
  it('has the documented shape and starts with the game, not before', async () => {
    const { browser, client } = await playing();
    await browser.pass(20_000);
    assert.equal(browser.sentTo('/heartbeat').length, 0);
    client.gameMetrics.setActive();
    await browser.pass(4000);
    const [{ url, body }] = browser.sentTo('/heartbeat');
    assert.equal(url, `/api/sessions/${ID}/heartbeat`);
    assert.deepEqual(body, {
      event: 'game_session_heartbeat', sessionId: ID, timestamp: browser.time - 4000, status: 'active',
      idleTime: 0, sessionDuration: 0, token: 'first',
    });
  });

  it('beats every five seconds, with one timer after two starts', async () => {
    const { browser, client } = await playing();
    client.gameMetrics.setActive();
    client.gameMetrics.setActive();
    await browser.pass(60_000);
    assert.equal(browser.sentTo('/heartbeat').length, 13);
    const last = browser.sentTo('/heartbeat').at(-1).body;
    assert.deepEqual([last.idleTime, last.sessionDuration], [60_000, 60_000]);
  });

  it('beats as often as the server asks, and not more than once a second', async () => {
    for (const [asked, every] of [[20, 20_000], [2.5, 2500], [0.001, 1000]]) {
      const { browser, client } = await playing();
      browser.on('POST', /\/heartbeat$/, () => [200, {
        cull_at: null, cull_reason: null, warning: null, next_heartbeat_s: asked,
      }]);
      client.gameMetrics.setActive();
      await browser.pass(60_000);
      assert.equal(browser.sentTo('/heartbeat').length, 1 + 60_000 / every, `every ${asked} s`);
      client.gameMetrics.setInactive();
      client.gameMetrics.setActive();
      await browser.settle();
      const again = browser.sentTo('/heartbeat').length;
      await browser.pass(60_000);
      assert.equal(browser.sentTo('/heartbeat').length - again, 60_000 / every, 'and after a restart');
    }
  });

  it('stops at game over and resumes at restart', async () => {
    const { browser, client } = await playing();
    client.gameMetrics.setActive();
    client.gameMetrics.setInactive();
    await browser.settle();
    const beats = browser.sentTo('/heartbeat').map(({ body }) => body.status);
    assert.deepEqual(beats, ['active', 'inactive']);
    await browser.pass(15_000);
    assert.equal(browser.sentTo('/heartbeat').length, 2);
    client.gameMetrics.setActive();
    await browser.pass(5000);
    assert.equal(browser.sentTo('/heartbeat').length, 4);
  });

  it('a thousand keys in a second cause at most one request more', async () => {
    const { browser, client } = await playing();
    client.gameMetrics.setActive();
    await browser.pass(13_000); // idle: the server has been told so
    const before = browser.sentTo('/heartbeat').length;
    for (let i = 0; i < 1000; i += 1) {
      client.gameMetrics.updateActivity();
      await browser.pass(1);
    }
    assert.equal(browser.sentTo('/heartbeat').length - before, 1);
    assert.equal(browser.sentTo('/heartbeat').at(-1).body.idleTime, 0);
  });

  it('stops after five idle minutes and starts again at the next key', async () => {
    const { browser, client } = await playing();
    client.gameMetrics.setActive();
    await browser.pass(301_000);
    assert.equal(browser.sentTo('/heartbeat').at(-1).body.status, 'inactive');
    const quiet = browser.sentTo('/heartbeat').length;
    await browser.pass(60_000);
    assert.equal(browser.sentTo('/heartbeat').length, quiet);
    client.gameMetrics.updateActivity();
    await browser.settle();
    assert.equal(browser.sentTo('/heartbeat').at(-1).body.status, 'active');
  });

  it('stops at the end of the session', async () => {
    const { browser, client, socket } = await playing();
    client.gameMetrics.setActive();
    socket.drop(4410, 'max_duration');
    await browser.pass(30_000);
    assert.equal(browser.sentTo('/heartbeat').length, 1);
  });

  it('tells at once that the tab is back in view', async () => {
    const { browser, client } = await playing();
    client.gameMetrics.setActive();
    const show = (state) => {
      browser.document.visibilityState = state;
      browser.document.dispatchEvent(new Event('visibilitychange'));
    };
    show('hidden');
    assert.equal(browser.beacons.at(-1).body.status, 'inactive');
    await browser.pass(60_000);
    const before = browser.sentTo('/heartbeat').length;
    show('visible');
    await browser.settle();
    const fresh = browser.sentTo('/heartbeat').slice(before).map(({ body }) => [body.status, body.idleTime]);
    assert.deepEqual(fresh, [['active', 0]]);
  });

  it('leaves with one beacon that carries the token and never an end', async () => {
    const { browser, client } = await playing();
    browser.dispatchEvent(new Event('pagehide'));
    assert.equal(browser.beacons.length, 0, 'nothing was active');
    client.gameMetrics.setActive();
    browser.dispatchEvent(new Event('beforeunload'));
    browser.dispatchEvent(new Event('pagehide'));
    assert.equal(browser.beacons.length, 1);
    const [{ url, body, raw }] = browser.beacons;
    assert.equal(typeof raw, 'string', 'sent as text/plain');
    assert.equal(url, `/api/sessions/${ID}/heartbeat`);
    assert.deepEqual([body.status, body.token, body.event], ['inactive', 'first', 'game_session_heartbeat']);
  });
});

describe('the warning before a cull', () => {
  const warned = async (reason) => {
    const set = await playing();
    const cull_at = new Date(set.browser.time + 60_000).toISOString();
    set.browser.on('POST', /\/heartbeat$/, (body) => [200, {
      cull_at, cull_reason: reason, warning: body.idleTime > 0 || set.browser.requests.length < 5 ? { reason, cull_at } : null,
    }]);
    set.warnings = [];
    set.game.on('warning', (warning) => set.warnings.push(warning));
    set.client.gameMetrics.setActive();
    await set.browser.settle();
    return set;
  };

  it('arrives with the heartbeat and says how long is left', async () => {
    const { warnings } = await warned('idle');
    assert.deepEqual([warnings[0].reason, warnings[0].secondsLeft], ['idle', 60]);
  });

  it('is lifted by keep playing: an active heartbeat', async () => {
    const { browser, game, warnings } = await warned('idle');
    await browser.pass(16_000);
    await game.keepPlaying();
    assert.equal(browser.sentTo('/heartbeat').at(-1).body.idleTime, 0);
    assert.equal(browser.sentTo('/extend').length, 0);
    assert.equal(warnings.at(-1), null);
  });

  it('comes without heartbeats too, after a look that is no activity', async () => {
    const { browser, client, game } = await playing();
    const warnings = [];
    game.on('warning', (warning) => warnings.push(warning?.secondsLeft ?? null));
    let cullAt = browser.time + 300_000;
    const deadline = () => ({ cull_at: new Date(cullAt).toISOString(), cull_reason: 'idle' });
    browser.on('POST', /\/heartbeat$/, () => [200, { ...deadline(), cull_in_ms: cullAt - browser.time, warning: null }]);
    browser.on('GET', new RegExp(`/api/sessions/${ID}$`), () => [200, deadline()]);
    client.gameMetrics.setActive();
    client.gameMetrics.setInactive();
    await browser.pass(100_000);
    cullAt = browser.time + 300_000; // a friend plays on
    await browser.pass(141_000);
    assert.deepEqual(warnings, []);
    await browser.pass(110_000);
    assert.deepEqual(warnings, [60]);
    cullAt = browser.time + 300_000;
    const beats = browser.sentTo('/heartbeat').length;
    await game.keepPlaying();
    assert.deepEqual(warnings, [60, null]);
    await browser.pass(20_000);
    assert.equal(browser.sentTo('/heartbeat').length, beats + 1, 'one, not a new series');
  });

  it('asks for an extension when the maximum is near', async () => {
    const { browser, game } = await warned('max_duration');
    browser.on('POST', /\/extend$/, () => [200, { cull_at: null, cull_reason: null }]);
    await game.keepPlaying();
    assert.equal(browser.sentTo('/extend')[0].headers.Authorization, 'Bearer first');
  });
});

describe('looking for a match', () => {
  const queued = (over = {}) => ({
    status: 'queued', ticket_id: 'T1', queue: 'spice', position: 2, estimate_s: 8, waited_s: 0, player_id: null, players: [],
    token: 'lobby', token_expires_at: null, ...over,
  });
  const matched = (browser, over = {}) => ({
    ...reply(browser, { phase: 'running', player_id: null }), status: 'matched', ticket_id: 'T1', queue: 'spice', ...over,
  });

  /** Somebody in line; `answers` is what each question after the ticket is told, a function of the request. */
  async function looking(answers = () => [200, queued()], options) {
    const { browser, client } = world(options);
    const seen = [];
    browser.on('POST', /\/api\/match\/join$/, (body) => [200, queued({ player_id: body.playerId })]);
    browser.on('GET', /\/api\/match\/status\?/, (_, request) => answers(request));
    browser.on('DELETE', /\/api\/match\/join$/, () => [200, { status: 'none' }]);
    const ticket = await client.findMatch({ queue: 'spice' });
    ticket.on('waiting', (state) => seen.push(state));
    await browser.settle();
    return { browser, client, ticket, seen, stream: browser.streams[0] };
  }
  const hello = { v: 1, id: '1', type: 'hello', resumed: false };
  const outcome = (ticket) => ticket.game.then((game) => game, (error) => error);

  it('joins the queue under its name and follows the lobby with the ticket token', async () => {
    const { browser, client, ticket, stream } = await looking();
    const { playerId } = await client.identity();
    assert.deepEqual(browser.sentTo('/match/join')[0].body, { playerId, queue: 'spice' });
    assert.equal(stream.url, `/api/events?player_id=${playerId}&token=lobby`);
    assert.deepEqual([ticket.id, ticket.state], ['T1', { position: 2, estimate: 8, online: true }]);
    await browser.pass(3000);
    assert.equal(ticket.waited, 3000);
  });

  it('plays as a new game does once it is matched, and lets go of the stream first', async () => {
    let answer = queued();
    const { browser, client, ticket, seen, stream } = await looking(() => [200, answer]);
    stream.say(hello);
    stream.say({ v: 1, id: '2', type: 'queued', ticket_id: 'T1', position: 1, estimate_s: 3, waiting_for: 'players' });
    assert.deepEqual(seen.at(-1), { position: 1, estimate: 3, online: true });
    await browser.settle();
    answer = matched(browser);
    stream.say({ v: 1, id: '3', type: 'matched', ticket_id: 'T1', session_id: ID });
    const game = await ticket.game;
    assert.deepEqual([stream.open, game.id, browser.sockets.length], [false, ID, 1]);
    assert.deepEqual(browser.sockets[0].protocols, ['spawnpoint.progress', 'spawnpoint.v1']);
    browser.sockets[0].accept('spawnpoint.v1');
    client.gameMetrics.setActive();
    await browser.pass(60_000);
    assert.equal(browser.sentTo('/heartbeat').length, 13);
    assert.equal(await ticket.cancel(), false);
    assert.equal(browser.sentTo('/match/join').length, 1, 'nothing is left to leave');
    assert.equal(JSON.parse(browser.storage.get('spawnpoint.identity')).ticket, undefined);
  });

  it('is matched by the reply of joining itself', async () => {
    const { browser, client } = world();
    browser.on('POST', /\/match\/join$/, (body) => [200, matched(browser, { player_id: body.playerId })]);
    const game = await (await client.findMatch()).game;
    assert.deepEqual([game.id, browser.streams.length, browser.sentTo('/status').length], [ID, 0, 0]);
  });

  it('does not go back into a game of one\'s own if asked not to, but into a match', async () => {
    for (const [players, gone] of [[['p'], `POST /api/match/${ID}/end`], [['p', 'q'], `DELETE /api/sessions/${ID}/players/p`]]) {
      const { browser, client } = world();
      const replies = [matched(browser, { ticket_id: null, player_id: 'p', players })];
      browser.on('POST', /\/match\/join$/, () => [200, replies.shift() ?? queued()]);
      for (const method of ['POST', 'DELETE']) browser.on(method, /\/(end|players\/p)$/, () => [200, { ended: true }]);
      const ticket = await client.findMatch({ fresh: true });
      assert.deepEqual(browser.requests.map(({ method, url }) => `${method} ${url}`).slice(0, 3),
        ['POST /api/match/join', gone, 'POST /api/match/join']);
      assert.equal(browser.requests[0].body.fresh, undefined);
      assert.equal(browser.requests[1].headers.Authorization, 'Bearer first');
      assert.equal(ticket.id, 'T1');
    }
    const { browser, client } = world();
    browser.on('POST', /\/match\/join$/, () => [200, matched(browser)]);
    await (await client.findMatch({ fresh: true })).game;
    assert.equal(browser.requests.length, 1);
  });

  it('a match between joining and the stream is seen at its hello', async () => {
    const { browser, ticket, stream } = await looking(() => [200, matched(browser)]);
    stream.say(hello);
    assert.equal((await ticket.game).id, ID);
  });

  it('asks once for several events, and again for what came while it asked', async () => {
    const answers = [[200, queued()], [200, queued()]];
    const { browser, ticket, stream } = await looking(() => answers.shift() ?? [200, matched(browser)]);
    stream.say(hello);
    for (const id of ['2', '3', '4', '5']) stream.say({ v: 1, id, type: 'phase', phase: 'starting' });
    await browser.settle();
    assert.equal(browser.sentTo('/status').length, 2);
    stream.say({ v: 1, id: '6', type: 'matched', ticket_id: 'T1' });
    assert.equal((await ticket.game).id, ID);
    assert.equal(browser.sentTo('/status').length, 3);
  });

  it('asks with a held question once the stream fails', async () => {
    const answers = [[200, queued({ position: 1 })]];
    const { browser, ticket, seen, stream } = await looking(({ url }) => {
      assert.match(url, /&queue=spice&wait=25$/);
      return answers.shift() ?? [200, matched(browser)];
    });
    stream.fail();
    await browser.settle();
    assert.deepEqual([stream.open, seen.at(-1).position], [false, 1]);
    assert.equal(browser.sentTo('/status')[0].headers.Authorization, 'Bearer lobby');
    await browser.settle();
    assert.equal(browser.sentTo('/status').length, 1, 'an answer that came at once is not asked for again at once');
    await browser.pass(1000);
    assert.equal((await ticket.game).id, ID);
  });

  it('asks so too when the stream says nothing, and without streams at all', async () => {
    const held = await looking();
    await held.browser.pass(4900);
    assert.equal(held.browser.sentTo('/status').length, 0);
    await held.browser.pass(200);
    assert.deepEqual([held.stream.open, held.browser.sentTo('wait=25').length], [false, 1]);
    const { browser, client } = world();
    browser.EventSource = undefined;
    browser.on('POST', /\/match\/join$/, () => [200, queued()]);
    browser.on('GET', /\/status/, () => [200, matched(browser)]);
    assert.equal((await (await client.findMatch()).game).id, ID);
  });

  it('no more than three tabs hold a connection, and its place goes to the next one', async () => {
    const heldLocks = new Set();
    const tabs = [];
    for (let i = 0; i < 5; i += 1) tabs.push(await looking(undefined, { heldLocks }));
    assert.deepEqual(tabs.map(({ browser }) => browser.streams.length), [1, 1, 1, 0, 0]);
    const [fourth] = tabs.slice(3);
    await fourth.browser.pass(10_000);
    const asked = fourth.browser.sentTo('/status');
    assert.deepEqual([asked.length, asked.filter(({ url }) => url.includes('wait')).length], [6, 0]);
    await tabs[1].ticket.cancel();
    const next = await looking(undefined, { heldLocks });
    assert.equal(next.browser.streams.length, 1);
    const without = await looking(undefined, { locks: false, heldLocks });
    await without.browser.pass(500);
    assert.equal(without.browser.streams.length, 1);
  });

  it('looks itself when a stream that spoke is silent, because a dead connection makes no sound', async () => {
    const { browser, stream } = await looking();
    stream.say(hello);
    await browser.settle();
    const before = browser.sentTo('/status').length;
    await browser.pass(60_000);
    assert.equal(browser.sentTo('/status').length - before, 3);
    assert.equal(stream.open, true);
  });

  it('says that the server does not answer, goes on, and gives up after two minutes', async () => {
    let down = true;
    const answer = () => {
      if (down) throw new TypeError('no network');
      return [200, queued({ position: 1 })];
    };
    const first = await looking(answer);
    first.stream.fail();
    await first.browser.pass(30_000);
    assert.equal(first.seen.at(-1).online, false);
    down = false;
    await first.browser.pass(9000);
    assert.deepEqual(first.seen.at(-1), { position: 1, estimate: 8, online: true });
    down = true;
    const second = await looking(answer);
    second.stream.fail();
    await second.browser.pass(140_000);
    assert.ok((await outcome(second.ticket)) instanceof TypeError);
    const asked = second.browser.sentTo('/status').length;
    assert.ok(asked > 10 && asked < 60, `${asked} questions in two minutes`);
    await second.browser.pass(60_000);
    assert.equal(second.browser.sentTo('/status').length, asked);
  });

  it('joins again when the server forgot the ticket, and says so when it keeps forgetting', async () => {
    const answers = [[200, { status: 'none' }], [200, { status: 'lost', code: 'ticket_lost', detail: 'Join again.' }], [200, queued({ position: 1 })]];
    const once = await looking(() => answers.shift() ?? [200, matched(once.browser)]);
    once.stream.say(hello);
    await once.browser.pass(5000);
    assert.equal((await once.ticket.game).id, ID);
    assert.equal(once.browser.sentTo('/match/join').length, 3);
    const always = await looking(() => [200, { status: 'none' }]);
    always.stream.say(hello);
    await always.browser.pass(60_000);
    assert.equal((await outcome(always.ticket)).code, 'lost');
    assert.equal(always.browser.sentTo('/match/join').length, 4);
  });

  it('a ticket given up for a cause, and a refusal, are final', async () => {
    const lost = { status: 'lost', code: 'start_failed', detail: 'The game server does not start.' };
    const { stream, ticket, browser } = await looking(() => [200, lost]);
    stream.say({ v: 1, id: '2', type: 'lost', ticket_id: 'T1' });
    const error = await outcome(ticket);
    assert.deepEqual([error.code, error.message], ['start_failed', 'The game server does not start.']);
    await browser.pass(60_000);
    assert.equal(browser.sentTo('/match/join').length, 1);
    const refused = await looking(() => [403, { code: 'forbidden', title: 'no' }]);
    refused.stream.fail();
    assert.equal((await outcome(refused.ticket)).code, 'forbidden');
    const full = world();
    full.browser.on('POST', /\/match\/join$/, () => [503, { code: 'matchmaking_full', detail: 'Full.', retry_after: 5 }]);
    await assert.rejects(full.client.findMatch(), ({ code, retryAfter }) => code === 'matchmaking_full' && retryAfter === 5);
  });

  it('a token that is too old is replaced by joining again', async () => {
    const answers = [[401, { code: 'invalid_credentials' }]];
    const { browser, ticket, stream } = await looking(({ headers }) => {
      assert.equal(headers.Authorization, 'Bearer lobby');
      return answers.shift() ?? [200, matched(browser)];
    });
    stream.fail();
    await browser.pass(2000);
    assert.equal((await ticket.game).id, ID);
    assert.equal(browser.sentTo('/match/join').length, 2);
  });

  it('leaves on request, unless a match came first', async () => {
    const { browser, ticket, stream, client } = await looking();
    const { playerId } = await client.identity();
    assert.equal(await ticket.cancel(), true);
    const [, left] = browser.sentTo('/match/join');
    assert.deepEqual([left.method, left.body, left.headers.Authorization], ['DELETE', { player_id: playerId, queue: 'spice' }, 'Bearer lobby']);
    assert.deepEqual([stream.open, (await outcome(ticket)).code], [false, 'cancelled']);
    await browser.pass(60_000);
    assert.equal(browser.sentTo('/status').length, 0);
    assert.equal(await client.resumeMatch(), null);

    const late = await looking();
    late.browser.on('DELETE', /\/match\/join$/, () => [200, matched(late.browser)]);
    assert.equal(await late.ticket.cancel(), false);
    assert.equal((await late.ticket.game).id, ID);
  });

  it('is found again after a reload, and nothing is asked where there was none', async () => {
    const { browser } = await looking();
    const reload = async (answer) => {
      const next = new FakeBrowser();
      next.time = browser.time;
      next.storage = new Map(browser.storage);
      next.on('GET', /\/match\/status\?/, () => answer(next));
      const client = createClient({ env: next });
      const ticket = await client.resumeMatch();
      await next.settle();
      return { next, client, ticket };
    };
    const again = await reload(() => [200, queued({ position: 1, waited_s: 12 })]);
    assert.deepEqual([again.ticket.state.position, again.ticket.waited], [1, 12_000]);
    assert.equal(again.next.sentTo('/status')[0].headers.Authorization, 'Bearer lobby');
    assert.equal(again.next.streams.length, 1);
    assert.equal((await (await reload((next) => [200, matched(next)])).ticket.game).id, ID);
    const gone = await reload(() => [200, { status: 'none' }]);
    assert.equal(gone.ticket, null);
    assert.equal(await gone.client.resumeMatch(), null);
    assert.equal(gone.next.requests.length, 1);
    const restarting = await reload(() => { throw new TypeError('no network'); });
    assert.equal(restarting.ticket.id, null);
    restarting.next.streams[0].fail();
    await restarting.next.settle();
    assert.equal(restarting.ticket.state.online, false);
  });

  it('a guest waits under the name and the token the server gave', async () => {
    const { browser, client } = world();
    browser.on('POST', /\/match\/join$/, (body) => (body.playerId
      ? [401, { code: 'unauthenticated', title: 'who?' }]
      : [200, queued({ player_id: 'guest-minted', token: 'g1' })]));
    const tokens = ['g2'];
    browser.on('GET', /\/status/, () => [200, tokens.length > 0
      ? queued({ player_id: 'guest-minted', token: tokens.shift() }) : matched(browser, { player_id: 'guest-minted', token: 'g3' })]);
    const bearer = () => JSON.parse(browser.storage.get('spawnpoint.identity')).bearer;
    const ticket = await client.findMatch();
    await browser.settle();
    assert.equal(browser.streams[0].url, '/api/events?player_id=guest-minted&token=g1');
    assert.equal(bearer(), 'g1');
    browser.streams[0].say(hello);
    await browser.settle();
    assert.equal(bearer(), 'g2', 'a younger token replaces it');
    browser.streams[0].say({ v: 1, id: '2', type: 'matched', ticket_id: 'T1' });
    assert.equal((await ticket.game).playerId, 'guest-minted');
    assert.equal(bearer(), 'g3');
  });
});

it('reads times in any of the three forms', () => {
  assert.equal(parseTime('2026-01-01T00:00:00Z'), 1_767_225_600_000);
  assert.equal(parseTime(1_767_225_600), 1_767_225_600_000);
  assert.equal(parseTime(1_767_225_600_000), 1_767_225_600_000);
  assert.equal(parseTime(null), null);
  assert.equal(parseTime('soon'), null);
});
