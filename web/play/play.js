// The page: from the title screen through a session to the end, and all that can go wrong between.
// No heartbeat and no session before Space (or a tap); an event stream while waiting for a match and
// none while playing (a browser opens only six connections to one host, and a party of tabs would use
// them up).

import { newGame, join, findMatch, resumeMatch, gameMetrics } from '/client/spawnpoint.js';
import * as attract from '/play/attract.js';
import { Input } from '/play/input.js';
import { HUES, Renderer } from '/play/render.js';
import { Sound } from '/play/sound.js';
import { STATUS, View } from '/play/view.js';
import { Waiting } from '/play/waiting.js';
import { endWords, noMatchWords, phaseWords, refusalWords, warningWords } from '/play/words.js';

const PING_EVERY_MS = 1000;
const $ = (id) => document.getElementById(id);
const seconds = () => performance.now() / 1000;

const link = new URLSearchParams(location.search);
let invitation = link.get('join') ? { session: link.get('join'), code: link.get('invite') } : null;

const view = new View();
const renderer = new Renderer($('stage'));
const sound = new Sound();
const waiting = new Waiting(document);
let game = null; // the session
let search = null; // for a match: {ticket}, the ticket null until there is one
let matched = false; // the game was found by the queue
let myId = null;
let screen = 'title'; // title | waiting | starting | playing | over | error
let entered = false; // took part in the round on screen
let wantStart = false; // send `start` as soon as the game listens
let askedAt = 0;
let retryError = null;
let lastSteer = '0,0';
let lastPing = 0;

// Counters for tests and for the curious; nothing in the page reads them.
const report = {
  sessionId: null, playerId: null, ticketId: null, position: null, phase: 'title', reconnects: 0, generation: 0, framesReceived: 0,
  me: { id: null, x: 0, y: 0, score: 0, best: 0, lives: 0, status: 0 }, players: {}, arena: 'lobby', latency: null, closed: null,
  get heartbeats() { return gameMetrics.sent; },
  get screen() { return screen; },
};
window.__spawnpoint = report;

// --- screens -----------------------------------------------------------------------------------
function show(next) {
  screen = next;
  document.body.dataset.screen = next;
  for (const id of ['waiting', 'starting', 'over', 'error']) $(id).hidden = id !== next;
  if (next !== 'playing') input.release();
  document.activeElement?.blur();
}

function toast(text, kind = '') {
  const element = $('toast');
  element.textContent = text;
  element.className = `on ${kind}`;
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => { element.className = kind; }, 1500);
}

function fail([title, text], code, action, label) {
  $('error-title').textContent = title;
  $('error-text').textContent = text;
  $('error-code').textContent = code ? `(${code})` : '';
  $('error-action').textContent = label;
  retryError = action;
  $('reconnect').hidden = true;
  $('warning').hidden = true;
  report.phase = 'error';
  show('error');
}

// --- starting ----------------------------------------------------------------------------------
const busy = () => screen === 'starting' || screen === 'waiting';

function starting(text) {
  show('starting');
  report.phase = 'starting';
  report.closed = null;
  askedAt = seconds();
  wantStart = true;
  entered = false;
  myId = null;
  view.reset();
  $('starting-text').textContent = text;
}

async function begin(ask, joining) {
  if (busy()) return;
  sound.unlock();
  matched = false;
  starting(joining ? 'Joining your friend…' : phaseWords({}));
  try {
    adopt(await ask(), joining);
  } catch (error) {
    const own = joining ? startOwn : restart;
    fail(refusalWords(error, joining), error.code, own, joining ? 'Start my own game' : 'Try again');
  }
}

function forgetInvitation() {
  if (!invitation) return;
  invitation = null;
  for (const name of ['join', 'invite']) link.delete(name);
  history.replaceState(null, '', `${location.pathname}${link.size > 0 ? `?${link}` : ''}`); // a reload must not join the old game again
}

const startOwn = (options) => {
  forgetInvitation();
  return begin(() => newGame(withFleet(options)), false);
};
const withFleet = (options = {}) => (link.get('fleet') ? { fleet: link.get('fleet'), ...options } : options);
function restart() {
  if (invitation) return begin(() => join(invitation.session, invitation.code), true);
  return begin(() => newGame(withFleet()), false);
}

// --- the match queue ------------------------------------------------------------------------------
// A queue has its fleet's name unless it was given another.
const queueOf = () => link.get('queue') ?? link.get('fleet');
const queueUp = () => findMatch({ fresh: true, ...(queueOf() && { queue: queueOf() }) });

function startMatch() {
  if (busy()) return;
  sound.unlock();
  forgetInvitation();
  wait(queueUp());
}

/** Waits on screen for the match of a ticket that is being asked for. */
async function wait(asked) {
  const mine = { ticket: null };
  search = mine;
  show('waiting');
  Object.assign(report, { phase: 'waiting', ticketId: null, position: null });
  $('waiting-cancel').disabled = false;
  waiting.open(seconds());
  try {
    mine.ticket = await asked;
    if (search !== mine) return withdraw(mine.ticket);
    const tell = () => {
      const { id, state, waited } = mine.ticket;
      Object.assign(report, { ticketId: id, position: state.position });
      waiting.take(state, waited, seconds());
    };
    mine.ticket.on('waiting', tell);
    tell();
    const session = await mine.ticket.game;
    if (search !== mine) return session.leave();
    search = null;
    matched = true;
    sound.play('start');
    starting('Match found: entering the desert…');
    adopt(session, false);
  } catch (error) {
    if (search === mine && error.code !== 'cancelled') fail(noMatchWords(error), error.code, startMatch, 'Try again');
  }
}

/** Leaves the queue; a game that came too soon to be stopped is left as well. */
async function withdraw(ticket) {
  if (ticket && !(await ticket.cancel())) (await ticket.game).leave();
}

async function cancelSearch() {
  if ($('waiting-cancel').disabled) return;
  $('waiting-cancel').disabled = true;
  const { ticket } = search;
  if (ticket && !(await ticket.cancel())) return; // there is a match: `wait` goes on with it
  search = null;
  Object.assign(report, { phase: 'title', ticketId: null, position: null });
  show('title');
  $('find-match').focus();
}

/** After a reload: back to the ticket this tab had. */
async function resume() {
  const ticket = await resumeMatch();
  if (!ticket) return;
  if (screen === 'title') wait(ticket);
  else withdraw(ticket);
}

// --- one game ---------------------------------------------------------------------------------------
function adopt(session, joining) {
  game = session;
  Object.assign(report, { sessionId: session.id, playerId: session.playerId, reconnects: 0, generation: session.generation });
  const mine = (listener) => (value) => { if (game === session) listener(value); };
  session.on('event', mine((event) => {
    report.generation = session.generation;
    report.phase = session.phase;
    $('starting-text').textContent = joining && session.phase === 'running' ? 'Joining your friend…' : phaseWords(event);
    if (screen !== 'starting') $('reconnect-text').textContent = phaseWords(event);
  }));
  session.on('open', mine(() => {
    report.phase = 'running';
    report.generation = session.generation;
    lastSteer = '0,0';
  }));
  session.on('message', mine(receive));
  session.on('reconnecting', mine(() => {
    report.reconnects = session.reconnects;
    report.phase = 'reconnecting';
    if (screen === 'starting') return;
    $('reconnect-text').textContent = 'Reconnecting…';
    $('reconnect').hidden = false;
  }));
  session.on('warning', mine(warn));
  session.on('close', mine(closed));
  const share = session.shareUrl ? new URL(session.shareUrl, location.href).href : '';
  $('share-link').value = share;
  $('invite').hidden = share === '';
}

function closed({ code, reason }) {
  report.closed = { code, reason };
  report.phase = 'ended';
  report.reconnects = game.reconnects;
  $('invite').hidden = true;
  $('share').hidden = true;
  if (code === 4409) {
    fail(endWords(code, reason), reason, restart, 'Play here instead');
    return;
  }
  const [next, label] = matched ? [startMatch, 'Find another match'] : [() => startOwn(), 'New game'];
  fail(endWords(code, reason), reason || String(code), next, label);
}

// --- the game's frames --------------------------------------------------------------------------
const handlers = {
  hello(message) {
    view.takeHello(message);
    myId = message.id;
    report.me.id = myId;
    $('reconnect').hidden = true;
    // A replaced server knows nothing of the round: whoever was in it goes straight back in.
    if (wantStart || (entered && !message.resumed && screen === 'playing')) say({ t: 'start' });
    if (entered && !message.resumed) toast('New server, new desert');
    wantStart = false;
  },
  who(message) { view.takeRoster(message); },
  s(message) { arrive(view.takeState(message, seconds()), message.ev ?? []); },
  pong(message) { report.latency = Math.round(performance.now() - message.c); },
  error(message) { console.warn(`spice: ${message.code}: ${message.message}`); },
};

function receive(data) {
  report.framesReceived += 1;
  const message = JSON.parse(data);
  handlers[message.t]?.(message);
}

function say(message) { return game?.send(JSON.stringify(message)) ?? false; }

function arrive(state, events) {
  const me = state.players.get(myId);
  if (!me) return;
  Object.assign(report.me, { x: me.x, y: me.y, score: me.score, best: me.best, lives: me.lives, status: me.status });
  report.arena = state.phase;
  report.players = Object.fromEntries([...state.players.values()]
    .filter(({ status }) => status !== STATUS.waiting).map(({ id, x, y, score }) => [id, { x, y, score }]));
  const inRound = state.phase === 'play' && (me.status === STATUS.running || me.status === STATUS.down);
  if (inRound && screen !== 'playing') {
    entered = true;
    show('playing');
    gameMetrics.setActive();
    sound.play('start');
  } else if (screen === 'playing' && !inRound) {
    gameOver(state, me);
  } else if (screen === 'starting' && state.phase === 'over') {
    gameOver(state, me); // came in while the standings are up
  }
  for (const event of events) sparks(event);
  hud(state, me);
}

function gameOver(state, me) {
  gameMetrics.setInactive();
  sound.play('over');
  const early = me.status === STATUS.out;
  $('over-title').textContent = early ? 'Swallowed!' : 'Time!';
  $('over-why').textContent = early ? 'The worm got your last life.' : 'The storm closes in. Final standings:';
  $('final-score').textContent = me.score.toLocaleString('en');
  $('final-best').textContent = me.score > 0 && me.score >= me.best ? 'Your best so far' : `Your best: ${me.best.toLocaleString('en')}`;
  show('over');
}

function playAgain() {
  if (!game || game.closed) return restart();
  return say({ t: 'start' });
}

function sparks([kind, ...n]) {
  const name = (id) => (id === myId ? 'you' : view.names.get(id)?.name ?? 'somebody');
  const does = {
    pick([who, x, y, points]) {
      renderer.burst(x, y, points > 40 ? 14 : 7, '#ffd27a', 170);
      if (who !== myId) return;
      renderer.label(x, y, `+${points}`, points > 30 ? '#fff0b0' : '#ffc76b', Math.min(34, 17 + points / 8));
      sound.play(points >= 50 ? 'rich' : 'pick', 1 + Math.min(0.8, points / 160));
    },
    steal([by, from, points, x, y]) {
      renderer.burst(x, y, 22, '#ffb347', 320);
      renderer.label(x, y, `${points}!`, '#ff9d6b', 28);
      if (by === myId) {
        toast(`Stole ${points} from ${name(from)}`, 'good');
        sound.play('steal');
      } else if (from === myId) {
        toast(`${name(by)} stole ${points} from you`, 'bad');
        sound.play('robbed');
      }
    },
    bump([x, y]) { renderer.burst(x, y, 10, '#fff', 220, 0.35); },
    breach([x, y]) {
      renderer.dust(x, y, 34, 330);
      renderer.quake(x, y, 34);
      sound.play('breach');
    },
    swallow([who, x, y]) {
      renderer.burst(x, y, 30, HUES[view.names.get(who)?.hue ?? 0], 340, 0.9);
      if (who === myId) sound.play('swallow');
      toast(who === myId ? 'Swallowed!' : `${name(who)} was swallowed`, who === myId ? 'bad' : '');
    },
    erupt([x, y]) {
      renderer.burst(x, y, 60, '#ffb347', 460, 1);
      renderer.quake(x, y, 12);
      sound.play('rich', 0.6);
    },
    thump([x, y]) {
      renderer.quake(x, y, 6);
      sound.play('thump');
      toast('Thumper! The worm comes here', 'good');
    },
    round() { toast('Run!', 'good'); },
    over() {},
  };
  does[kind]?.(n);
}

// --- head-up display -----------------------------------------------------------------------------
let shownBoard = '';
let warnedOfBlow = false;
let heardTremor = false;

function hud(state, me) {
  $('score').textContent = me.score.toLocaleString('en');
  $('combo').hidden = me.multiplier < 2;
  $('combo').textContent = `×${me.multiplier}`;
  const left = Math.ceil(state.left);
  $('timer').textContent = `${Math.floor(left / 60)}:${String(left % 60).padStart(2, '0')}`;
  $('timer').classList.toggle('late', state.phase === 'play' && left <= 10);
  bar('noise', me.noise);
  bar('dash', me.dash);
  if ($('lives').childElementCount === 0) $('lives').append(...Array.from({ length: 3 }, () => document.createElement('i')));
  [...$('lives').children].forEach((drop, i) => drop.classList.toggle('lost', i >= me.lives));
  $('lives').setAttribute('aria-label', `${me.lives} lives`);
  const ranked = [...state.players.values()]
    .filter(({ id, status }) => status !== STATUS.waiting || id === myId || state.phase !== 'play')
    .sort((a, b) => b.score - a.score || a.id - b.id).slice(0, 8);
  const key = ranked.map(({ id, score, flags }) => `${id}:${score}:${flags & 16}`).join() + view.names.size;
  if (key !== shownBoard) {
    shownBoard = key;
    for (const id of ['scoreboard', 'standings']) $(id).replaceChildren(...ranked.map(boardLine));
  }
  if (state.blow && !warnedOfBlow && screen === 'playing') toast('Spice blow!', 'good');
  warnedOfBlow = Boolean(state.blow);
  const tremor = state.worms.some(({ mood, x, y }) => mood === 2 && Math.hypot(x - me.x, y - me.y) < 400);
  if (tremor && !heardTremor) sound.play('rumble');
  heardTremor = tremor;
}

function bar(id, value) {
  $(id).firstElementChild.style.transform = `scaleX(${value / 100})`;
  $(id).setAttribute('aria-valuenow', value);
  if (id !== 'noise') return;
  $(id).classList.toggle('mid', value >= 22 && value < 55); // 22 is where worms begin to hear
  $(id).classList.toggle('high', value >= 55);
}

function boardLine({ id, score, flags }) {
  const line = document.createElement('li');
  const who = view.names.get(id) ?? { name: '…', hue: 0 };
  const name = document.createElement('span');
  const points = document.createElement('span');
  name.textContent = id === myId ? `${who.name} (you)` : who.name;
  points.textContent = score.toLocaleString('en');
  line.style.setProperty('--hue', HUES[who.hue % HUES.length]);
  line.classList.toggle('me', id === myId);
  line.classList.toggle('away', Boolean(flags & 16));
  line.append(name, points);
  return line;
}

let warned = null; // {reason, endsAt} on the page's clock

function warn(warning) {
  const known = warning && warning.secondsLeft !== null;
  warned = known ? { reason: warning.reason, endsAt: seconds() + warning.secondsLeft } : null;
  $('warning').hidden = warning === null || screen === 'error' || screen === 'title';
  if (warning) $('warning-text').textContent = warningWords(warning);
}

function countDown(at) {
  const secondsLeft = Math.max(0, Math.round(warned.endsAt - at));
  const text = warningWords({ reason: warned.reason, secondsLeft });
  if ($('warning-text').textContent !== text) $('warning-text').textContent = text;
}

async function keepPlaying() {
  $('warning').hidden = true;
  try {
    await game?.keepPlaying();
  } catch (error) {
    toast(error.code === 'http_409' || error.status === 403 ? 'This game cannot be made longer' : error.message, 'bad');
  }
}

// --- input ----------------------------------------------------------------------------------------
const input = new Input($('stage'), $('dash-button'), {
  playing: () => screen === 'playing',
  activity: () => {
    sound.unlock();
    gameMetrics.updateActivity();
  },
  dash: () => {
    if (screen !== 'playing') return;
    steer(); // in the direction of this moment
    if (say({ t: 'dash' })) sound.play('dash');
  },
  space: () => {
    if (screen === 'title') restart();
    else if (screen === 'playing') input.on.dash();
    else if (screen === 'over') playAgain();
    else if (screen === 'error') retryError?.();
  },
  mute: toggleMute,
});

// Only changes are sent, and pings only along with them: a page nobody touches must fall silent,
// or its own traffic would keep an abandoned game alive.
function steer() {
  const mine = view.latest?.players.get(myId);
  const [x, y] = input.steer(mine && renderer.toScreen(mine.x, mine.y));
  const rounded = [Math.round(x * 50) / 50, Math.round(y * 50) / 50];
  if (String(rounded) === lastSteer || !say({ t: 'in', x: rounded[0], y: rounded[1] })) return;
  lastSteer = String(rounded);
  if (performance.now() - lastPing > PING_EVERY_MS) {
    lastPing = performance.now();
    say({ t: 'ping', c: lastPing });
  }
}

function toggleMute() {
  sound.muted = !sound.muted;
  $('mute').setAttribute('aria-pressed', String(sound.muted));
}

$('play').addEventListener('click', restart);
// The old game is ended (or left, when others are in it) and a new one made.
$('new-game').addEventListener('click', () => startOwn({ fresh: true }));
$('find-match').addEventListener('click', startMatch);
$('waiting-cancel').addEventListener('click', cancelSearch);
$('again').addEventListener('click', playAgain);
$('error-action').addEventListener('click', () => retryError?.());
$('keep-playing').addEventListener('click', keepPlaying);
$('mute').addEventListener('click', (event) => {
  toggleMute();
  event.currentTarget.blur();
});
$('invite').addEventListener('click', (event) => {
  $('share').hidden = !$('share').hidden;
  if (!$('share').hidden) $('share-link').select();
  event.currentTarget.blur();
});
$('share-close').addEventListener('click', () => { $('share').hidden = true; });
$('copy-link').addEventListener('click', async () => {
  $('share-link').select();
  try {
    await navigator.clipboard.writeText($('share-link').value);
  } catch {
    document.execCommand('copy'); // plain http on a LAN has no clipboard API
  }
  $('share').hidden = true;
  toast('Link copied', 'good');
});
window.addEventListener('keydown', (event) => {
  if (event.code !== 'Escape') return;
  $('share').hidden = true;
  if (screen === 'waiting') cancelSearch();
});
// A tap anywhere on the title's desert starts, as the button says.
$('stage').addEventListener('click', () => { if (screen === 'title') restart(); });

// --- every frame ----------------------------------------------------------------------------------
function frame() {
  const at = seconds();
  if (screen === 'playing') steer();
  if (warned && !$('warning').hidden) countDown(at);
  if (screen === 'waiting') waiting.draw(at);
  if (screen === 'starting') $('starting-time').textContent = `${(at - askedAt).toFixed(1)} s`;
  const reach = report.latency === null ? '' : ` · ${report.latency} ms`;
  const net = game && !['title', 'waiting', 'error'].includes(screen) ? `${game.phase}${reach}` : '';
  if ($('net').textContent !== net) $('net').textContent = net;
  if (view.hello) renderer.draw(view.sample(at, myId), view.hello, view.names, myId, at);
  else renderer.draw(attract.scene(at), attract.hello, attract.names, null, at);
  requestAnimationFrame(frame);
}

$('joining').hidden = invitation === null;
if (matchMedia('(pointer: coarse)').matches) document.body.classList.add('touch');
resume();
requestAnimationFrame(frame);
