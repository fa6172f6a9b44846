// Plain words for everything that can end or delay a game.

const ENDS = {
  1000: ['Game over', 'The game server has finished.'],
  1013: ['No server', 'A game server could not be started just now.'],
  4401: ['Ticket expired', 'Your ticket for this game is no longer valid.'],
  4403: ['Not your game', 'This link is not for you, or the game takes no more guests.'],
  4404: ['Game not found', 'This game does not exist any more.'],
  4408: ['Fell asleep', 'Nobody played for a while, so the game was ended.'],
  4409: ['Playing elsewhere', 'You opened this game in another tab, and it took over.'],
  4410: ['Time is up', 'The game reached its longest duration.'],
  4411: ['Game ended', 'The game was ended.'],
  4500: ['Server crashed', 'The game server crashed and could not be brought back.'],
};

const REFUSALS = {
  players_in_other_session: 'You are in another game already.',
  not_joinable: 'This game does not take new players.',
  session_full: 'This game is full.',
  session_ended: 'This game is over.',
  invite_required: 'This game needs an invitation; ask for the full link.',
};

const NO_MATCH = {
  matchmaking_full: ['The queue is full', 'Too many players are waiting.'],
  lobby_unavailable: ['No matches just now', 'The queue cannot be reached.'],
  lost: ['Lost your place', 'The queue lost you several times; the server may be starting anew.'],
};

/** [title, sentence] for a final close. */
export function endWords(code, reason) {
  if (reason === 'unreachable') return ['Connection lost', 'The game could not be reached any more.'];
  return ENDS[code] ?? ['Disconnected', 'The connection to the game was closed.'];
}

/** [title, sentence] for a request that was refused or never arrived. */
export function refusalWords(error, joining) {
  if (error.status === undefined) return ['No connection', 'The server does not answer. Is it running?'];
  if (joining && error.status === 404) return ENDS[4404];
  if (error.status === 429 || error.status === 503) {
    const wait = error.retryAfter ? ` Try again in ${Math.ceil(error.retryAfter)} s.` : ' Try again in a moment.';
    return ['All busy', `No game server is free right now.${wait}`];
  }
  const words = REFUSALS[error.code];
  if (joining && !words && [401, 403].includes(error.status)) return ENDS[4403];
  return ['That did not work', words ?? error.message];
}

/** [title, sentence] for a search for a match that came to nothing. */
export function noMatchWords(error) {
  const words = NO_MATCH[error.code];
  if (!words) return refusalWords(error, false);
  return error.retryAfter ? [words[0], `${words[1]} Try again in ${Math.ceil(error.retryAfter)} s.`] : words;
}

/** Minutes and seconds, `1:05`. */
export function clockWords(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`;
}

/** How long it may still take, coarser the longer: a guess to the second would only be wrong more often. */
export function estimateWords(seconds) {
  if (seconds === null) return '–';
  if (seconds < 2) return 'soon'; // or any moment since: a guess that has run out promises nothing
  if (seconds <= 10) return `${Math.round(seconds)} s`;
  if (seconds <= 55) return `${Math.ceil(seconds / 5) * 5} s`;
  return `${Math.ceil(seconds / 60)} min`;
}

/** The sentence of somebody who waits for a match. */
export function placeWords({ position, online }) {
  if (!online) return 'The server is away; still trying.';
  if (position === null) return 'Getting in line.';
  if (position === 1) return 'You are first in line.';
  return position === 2 ? 'One is ahead of you.' : `${position - 1} are ahead of you.`;
}

/** What the start of a game is doing. */
export function phaseWords(event) {
  if (event.type === 'queued' || event.phase === 'queued') {
    const position = event.position ?? event.queue?.position;
    return position ? `All servers are busy: you are number ${position} in line…` : 'Waiting for a free server…';
  }
  if (event.phase === 'replacing') return 'Your server had an accident: starting another…';
  if (event.phase === 'ready' || event.phase === 'running') return 'Entering the desert…';
  return 'Starting your server…';
}

/** The sentence of a cull warning. */
export function warningWords({ reason, secondsLeft }) {
  const when = secondsLeft === null ? 'soon' : `in ${secondsLeft} s`;
  if (reason === 'max_duration') return `This game reaches its longest duration ${when}.`;
  if (reason === 'idle') return `Still there? The game ends ${when} if nobody plays.`;
  return `The game ends ${when}.`;
}
