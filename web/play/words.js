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
