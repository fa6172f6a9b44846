// The panel of somebody who waits for a match. What it says changes only where it differs, so that
// a screen reader hears of news and not of every second.

import { clockWords, estimateWords, placeWords } from '/play/words.js';

const NOTHING = { position: null, estimate: null, online: true };

export class Waiting {
  #panel;
  #cells;
  #state = NOTHING;
  #estimatedAt = 0; // seconds on the page's clock
  #joinedAt = 0;

  constructor(document) {
    const byId = (id) => document.getElementById(`waiting-${id}`);
    this.#panel = document.getElementById('waiting');
    this.#cells = { place: byId('place'), position: byId('position'), estimate: byId('estimate'), time: byId('time') };
  }

  /** Shown anew, to somebody who has waited for so many milliseconds. The panel takes the focus, not its button: Space must not cancel. */
  open(at) {
    this.#joinedAt = at;
    this.take(NOTHING, 0, at);
    this.#panel.focus({ preventScroll: true });
  }

  take(state, waited, at) {
    this.#state = state;
    this.#estimatedAt = at;
    this.#joinedAt = at - waited / 1000;
    this.draw(at);
  }

  draw(at) {
    const { position, estimate, online } = this.#state;
    const left = estimate === null || !online ? null : estimate - (at - this.#estimatedAt);
    this.#write('place', placeWords(this.#state));
    this.#write('position', position === null || !online ? '–' : String(position));
    this.#write('estimate', estimateWords(left));
    this.#write('time', clockWords((at - this.#joinedAt) * 1000));
  }

  #write(cell, text) {
    if (this.#cells[cell].textContent !== text) this.#cells[cell].textContent = text;
  }
}
