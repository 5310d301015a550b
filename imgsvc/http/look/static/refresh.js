// The loop that refreshes the numbers: one request at a time, none while the page is hidden.

const EVERY_SECONDS = 5;
const TICK_MS = 250;
const SOON_MS = 1100; // the service builds a new response at most once a second

export class Refresh {
  #due = 0;
  #busy = false;
  #asked = false; // for one request, even while paused
  #ended = false;

  /** `load` fetches and shows; it never raises. `tick(words)` gets the countdown's text, four times a second. */
  constructor(load, tick) {
    this.load = load;
    this.tick = tick;
    this.paused = false;
  }

  start() {
    document.addEventListener('visibilitychange', () => this.#look());
    setInterval(() => this.#look(), TICK_MS);
    this.#due = performance.now() + EVERY_SECONDS * 1000;
  }

  /** Send a request at once, or right after the current one. */
  now() {
    this.#asked = true;
    this.#due = 0;
    this.#look();
  }

  /** Send a request after the snapshot has been renewed: an earlier response would not show the latest action. */
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
