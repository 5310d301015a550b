// The loop that keeps the numbers fresh: one request at a time, none while nobody looks.

const EVERY_SECONDS = 5;
const TICK_MS = 250;
const SOON_MS = 1100; // the service makes a new answer once a second at the most

export class Refresh {
  #due = 0;
  #busy = false;
  #asked = false; // for one request, even while paused
  #ended = false;

  /** `load` fetches and shows; it never raises. `tick(words)` gets what the countdown says, four times a second. */
  constructor(load, tick) {
    this.load = load;
    this.tick = tick;
    this.paused = false;
  }

  start() {
    document.addEventListener('visibilitychange', () => this.#look());
    setInterval(() => this.#look(), TICK_MS);
    this.now();
  }

  /** A request at once, or right after the one that is under way. */
  now() {
    this.#asked = true;
    this.#due = 0;
    this.#look();
  }

  /** A request once what was just done shows: an answer may be as old as the one before it by that time. */
  soon() {
    this.#asked = true;
    this.#due = performance.now() + SOON_MS;
    this.#look();
  }

  pause(paused) {
    this.paused = paused;
    if (paused) this.tick('paused');
    else this.now();
  }

  end() {
    this.#ended = true;
    this.tick('stopped');
  }

  #look() {
    if (this.#ended) return;
    const left = Math.ceil((this.#due - performance.now()) / 1000);
    const wanted = left <= 0 && (this.#asked || !this.paused);
    if (wanted && !this.#busy && !document.hidden) void this.#once();
    else if (this.paused) this.tick('paused');
    else this.tick(this.#busy ? 'refreshing' : `next in ${Math.max(left, 0)} s`);
  }

  async #once() {
    this.#busy = true;
    this.#asked = false;
    await this.load();
    this.#busy = false;
    if (!this.#asked) this.#due = performance.now() + EVERY_SECONDS * 1000;
    this.#look();
  }
}
