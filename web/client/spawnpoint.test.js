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
    await copy.pass(400);
    assert.notEqual((await wish).playerId, playerId);
    assert.match((await wish).playerId, /^guest-[0-9a-f]{24}$/);
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

it('reads times in any of the three forms', () => {
  assert.equal(parseTime('2026-01-01T00:00:00Z'), 1_767_225_600_000);
  assert.equal(parseTime(1_767_225_600), 1_767_225_600_000);
  assert.equal(parseTime(1_767_225_600_000), 1_767_225_600_000);
  assert.equal(parseTime(null), null);
  assert.equal(parseTime('soon'), null);
});
