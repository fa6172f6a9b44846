// Waiting for something to become true. Nothing else in these tests waits.

const POLL_MS = 40;

/** What `probe` returned last, shortened, for the message of a wait that failed. */
function shown(value) {
  const text = value instanceof Error ? String(value) : JSON.stringify(value, null, 1);
  return text === undefined ? String(value) : text.slice(0, 4000);
}

/**
 * Asks `probe` until `accept` takes its value, and returns that value. `hopeless` names values that
 * can never become right: they fail at once. An error of `probe` is an answer only with `tolerant`
 * (a server that is being restarted refuses connections for a while).
 */
export async function until(what, probe, { accept = Boolean, hopeless = () => false, within = 10_000, tolerant = false } = {}) {
  const deadline = Date.now() + within;
  for (;;) {
    let seen;
    try {
      seen = await probe();
      if (accept(seen)) return seen;
    } catch (error) {
      if (!tolerant) throw new Error(`waiting for: ${what}`, { cause: error });
      seen = error;
    }
    if (!(seen instanceof Error) && hopeless(seen)) throw new Error(`will never be: ${what}; it is\n${shown(seen)}`);
    if (Date.now() > deadline) throw new Error(`not within ${within / 1000} s: ${what}; last seen\n${shown(seen)}`);
    await new Promise((done) => { setTimeout(done, POLL_MS); });
  }
}

/** Watches for `ms` that `probe` keeps being accepted: for what must not happen. */
export async function holds(what, probe, { accept = Boolean, ms }) {
  const end = Date.now() + ms;
  while (Date.now() < end) {
    const seen = await probe();
    if (!accept(seen)) throw new Error(`did not hold: ${what}; seen\n${shown(seen)}`);
    await new Promise((done) => { setTimeout(done, POLL_MS); });
  }
}
