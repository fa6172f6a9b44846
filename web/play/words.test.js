import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { clockWords, estimateWords, noMatchWords, placeWords } from './words.js';

describe('the words of somebody who waits for a match', () => {
  it('say the place in line', () => {
    const place = (position, online = true) => placeWords({ position, online });
    assert.deepEqual([null, 1, 2, 3, 101].map((position) => place(position)),
      ['Getting in line.', 'You are first in line.', 'One is ahead of you.', '2 are ahead of you.', '100 are ahead of you.']);
    assert.match(place(1, false), /still trying/);
  });

  it('guess coarser the longer it takes, and promise nothing once the guess has run out', () => {
    assert.deepEqual([null, -5, 0, 1.9, 2, 9.6, 10.1, 31, 55, 56, 60, 61, 600].map(estimateWords),
      ['–', 'soon', 'soon', 'soon', '2 s', '10 s', '15 s', '35 s', '55 s', '1 min', '1 min', '2 min', '10 min']);
  });

  it('count minutes and seconds', () => {
    assert.deepEqual([-1, 0, 999, 9_000, 65_000, 3_600_000].map(clockWords), ['0:00', '0:00', '0:00', '0:09', '1:05', '60:00']);
  });

  it('say why nothing came of it', () => {
    assert.deepEqual(noMatchWords({ code: 'matchmaking_full', status: 503, retryAfter: 4.2 }),
      ['The queue is full', 'Too many players are waiting. Try again in 5 s.']);
    assert.equal(noMatchWords({ code: 'lost', status: 409, retryAfter: null })[0], 'Lost your place');
    assert.equal(noMatchWords(new TypeError('fetch'))[0], 'No connection');
    assert.equal(noMatchWords({ code: 'start_failed', status: 409, message: 'It does not start.' })[1], 'It does not start.');
  });
});
