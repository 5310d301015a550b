/**
 * Uploads photos from a browser to an imgsvc service: an ES module without dependencies and without a build step.
 *
 *     import { Uploader } from "https://img.example.org/static/imgsvc.js";
 *     const uploader = new Uploader({ ticket: async () => (await fetch("/ticket", { method: "POST" })).json() });
 *     uploader.upload(file, { progress: (sent, total) => …, thumbnail: (url) => …, failed: (error) => … });
 *
 * The service has to allow the page's origin (`[server] cors_origins`). The file may be copied: then pass `service`.
 *
 * @typedef {{ upload_url: string, ticket: string }} Ticket  What `POST /api/v1/images/tickets` answers.
 * @typedef {{ job_id: string, image_id: string, status: string, ready: string[], urls: Record<string, string> }} Job
 * @typedef {{ color: string | null, hash: string | null, url: string | null, css: string }} Placeholder
 *   The dominant colour (`#rrggbb`), the ThumbHash in base64, a `data:` URL of the picture that it stands for, and both
 *   as a value for the CSS property `background`.
 *
 * @typedef {object} Options
 * @property {string | URL} [service]  The service's root. Default: where this module was loaded from.
 * @property {Ticket | ((file: Blob) => Ticket | Promise<Ticket>)} [ticket]  From your backend; asked for each upload.
 * @property {string | (() => string | Promise<string>)} [token]  A user's token, in place of a ticket.
 * @property {string} [bucket]  Needed with `token`; a ticket names its own.
 * @property {number} [parallel]  Uploads at the same time (3). Browsers open six connections to a host by HTTP/1.1.
 * @property {number} [attempts]  How often an upload is sent at most (5).
 * @property {number} [longestPause]  Seconds (60). A `Retry-After` beyond it makes the upload fail.
 *
 * @typedef {object} Listeners  Called with what becomes of an upload; all are optional.
 * @property {(sent: number, total: number) => void} [progress]  Bytes.
 * @property {(receipt: { jobId: string, imageId: string }) => void} [accepted]  The photo is on the service's disk.
 * @property {(shown: Placeholder) => void} [placeholder]
 * @property {(url: string, variant: string) => void} [thumbnail]  The smallest of the first variants that can be fetched.
 * @property {(url: string, variant: string) => void} [ready]  Each variant that can be fetched, that one too.
 * @property {(job: Job) => void} [completed]
 * @property {(error: Error) => void} [failed]  An UploadError, or an `AbortError` after `abort()`.
 * @property {Record<string, unknown>} [metadata]
 * @property {AbortSignal} [signal]
 */

const FIRST_PAUSE = 0.5; // seconds; doubled for each attempt
const AGAIN = new Set([429, 502, 503, 504]);
const MAX_JOBS = 100; // of one event stream
const SETTLE_MS = 100; // uploads that are accepted together are followed by one stream
const SILENCE_MS = 45_000; // the service sends a comment every 15 seconds
const POLL_SECONDS = 5;

/**
 * Why there is no image. `status` is that of the service's answer: 0 if none came, 200 if the photo was accepted and
 * its job failed. `code` is stable, `message` is for people.
 */
export class UploadError extends Error {
  /**
   * @param {number} status
   * @param {{ code?: string, detail?: string, reason?: string, trace_id?: string }} problem
   * @param {number | null} [retryAfter]  Seconds, if the service said when to try again.
   */
  constructor(status, problem, retryAfter = null) {
    super([problem.detail ?? `Status ${status}`, problem.reason].filter(Boolean).join(' '));
    this.name = 'UploadError';
    this.status = status;
    this.code = problem.code ?? '';
    this.traceId = problem.trace_id ?? '';
    this.retryAfter = retryAfter;
  }
}

/** Uploads files to one service, a few at a time, and follows all of them by one event stream. */
export class Uploader {
  #options;
  #waiting = [];
  #running = 0;

  /** @param {Options} options */
  constructor(options) {
    if (!options.ticket && !options.token) throw new TypeError('An Uploader needs a ticket or a token.');
    this.#options = { parallel: 3, attempts: 5, longestPause: 60, ...options };
    this.service = new Service(options.service ?? new URL('..', import.meta.url));
    this.follower = new Follower(this.service);
  }

  /**
   * Upload a file when its turn has come.
   * @param {Blob} file
   * @param {Listeners} [listeners]
   */
  upload(file, listeners = {}) {
    const upload = new Upload(this, this.#options, file, listeners);
    upload.retry();
    return upload;
  }

  /** Do this as soon as fewer than `parallel` uploads are on their way. */
  async inTurn(signal, act) {
    if (this.#running >= this.#options.parallel) {
      let begin;
      await until(signal, (done) => this.#waiting.push(begin = done), () => {
        this.#waiting = this.#waiting.filter((one) => one !== begin);
      });
    } else {
      this.#running += 1;
    }
    try {
      return await act();
    } finally {
      const next = this.#waiting.shift();
      if (next) next(); // which takes this place
      else this.#running -= 1;
    }
  }
}

/** One file on its way. `state` is waiting, sending, processing, completed, failed or aborted. */
export class Upload {
  #uploader;
  #options;
  #listeners;
  #ticket = null;
  #abort = new AbortController();
  #announced = new Set();
  #news = Promise.resolve(); // listeners are called one after the other

  constructor(uploader, options, file, listeners) {
    Object.assign(this, { file, state: 'idle', jobId: null, imageId: null, key: newKey() });
    this.#uploader = uploader;
    this.#options = options;
    this.#listeners = listeners;
    listeners.signal?.addEventListener('abort', () => this.abort());
  }

  /** End it. An upload that was accepted before stays with the service. */
  abort() {
    this.#abort.abort(new DOMException('The upload was aborted.', 'AbortError'));
  }

  /**
   * Send it again after it failed or was aborted: with the same Idempotency-Key, so a first upload whose receipt was
   * lost makes no second image.
   */
  retry() {
    if (!['idle', 'failed', 'aborted'].includes(this.state)) return this.done;
    if (this.state === 'failed' && this.jobId) { // the old key would get the failed job again
      Object.assign(this, { key: newKey(), jobId: null, imageId: null });
      this.#announced.clear();
    }
    this.#abort = new AbortController();
    if (this.#listeners.signal?.aborted) this.abort();
    this.state = 'waiting';
    /** @type {Promise<Job>} */
    this.done = this.#run();
    this.done.catch(() => {}); // `failed` is called with the error; awaiting `done` is optional
    return this.done;
  }

  async #run() {
    const { signal } = this.#abort;
    try {
      const receipt = await this.#uploader.inTurn(signal, () => this.#sent(signal));
      Object.assign(this, { state: 'processing', jobId: receipt.job_id, imageId: receipt.image_id });
      this.#tell('accepted', { jobId: receipt.job_id, imageId: receipt.image_id });
      const job = await this.#followed(signal);
      if (job.status !== 'completed') {
        throw new UploadError(200, { code: job.error_code ?? job.status, detail: job.error ?? 'The image is gone.' });
      }
      this.state = 'completed';
      this.#tell('completed', job);
      return job;
    } catch (error) {
      this.state = error.name === 'AbortError' ? 'aborted' : 'failed';
      this.#tell('failed', error);
      throw error;
    }
  }

  /** The receipt, after as many attempts as it takes. */
  async #sent(signal) {
    const { attempts, longestPause } = this.#options;
    let renewed = false;
    for (let made = 1; ; made += 1) {
      signal.throwIfAborted();
      this.state = 'sending';
      try {
        return await this.#attempt(signal);
      } catch (error) {
        if (!(error instanceof UploadError)) throw error;
        if (!renewed && typeof this.#options.ticket === 'function' && /^ticket_(spent|expired)$/.test(error.code)) {
          renewed = true; // it was not this upload that spent it: that would have been answered by the receipt
          this.#ticket = null;
          continue;
        }
        const again = error.status === 0 || AGAIN.has(error.status) || error.code === 'idempotency_in_progress';
        const pause = error.retryAfter ?? FIRST_PAUSE * 2 ** (made - 1) * (0.8 + 0.4 * Math.random());
        if (!again || made >= attempts || pause > longestPause) throw error;
        await slept(pause * 1000, signal);
      }
    }
  }

  async #attempt(signal) {
    const { ticket, token, bucket } = this.#options;
    const form = new FormData();
    if (bucket) form.append('bucket', bucket);
    if (this.#listeners.metadata) form.append('metadata', JSON.stringify(this.#listeners.metadata));
    form.append('file', this.file, this.file.name ?? 'upload');
    const headers = { 'Idempotency-Key': this.key };
    let path = '/api/v1/images/upload';
    if (ticket) {
      this.#ticket ??= typeof ticket === 'function' ? await ticket(this.file) : ticket;
      path = this.#ticket.upload_url;
    } else {
      headers.Authorization = `Bearer ${typeof token === 'function' ? await token() : token}`;
    }
    return this.#uploader.service.post(path, form, headers, signal, (sent, total) => this.#tell('progress', sent, total));
  }

  /** The job's status once it has ended. */
  #followed(signal) {
    const { service, follower } = this.#uploader;
    const inTurn = (act) => { this.#news = this.#news.then(act); };
    return until(signal, (done, failed) => follower.add(this.jobId, {
      authorization: () => this.#authorization(),
      ready: (news) => inTurn(() => this.#onReady(news).catch(failed)),
      end: (job) => inTurn(async () => {
        const shown = job.ready?.length ? await this.#readable(job, job.ready[0]) : job;
        done({ ...shown, urls: service.absolute(shown.urls) });
      }),
    }), () => follower.remove(this.jobId));
  }

  async #onReady({ variant, url, thumbhash, dominant_color }) {
    if (this.#announced.has(variant)) return; // a stream that starts over reports it again
    this.#announced.add(variant);
    const job = await this.#readable({ urls: url ? { [variant]: url } : {}, thumbhash, dominant_color }, variant);
    const address = job.urls[variant] && this.#uploader.service.at(job.urls[variant]);
    const first = this.#announced.size === 1;
    if (first) this.#tell('placeholder', shownFirst(job.dominant_color ?? null, job.thumbhash ?? null));
    if (first && address) this.#tell('thumbnail', address, variant);
    if (address) this.#tell('ready', address, variant);
  }

  /**
   * This status, or if it does not say where the variant is, the one that the upload's own ticket gets: where reading is
   * private, the stream of many jobs carries the ticket of one.
   */
  async #readable(job, variant) {
    if (job.urls[variant]) return job;
    try {
      return { ...job, ...await this.#uploader.service.status(this.jobId, await this.#authorization()) };
    } catch {
      return job; // the upload has succeeded all the same
    }
  }

  async #authorization() {
    const { token } = this.#options;
    return `Bearer ${this.#ticket?.ticket ?? (typeof token === 'function' ? await token() : token)}`;
  }

  #tell(event, ...news) {
    this.#listeners[event]?.(...news);
  }
}

/** The service's addresses and calls. */
class Service {
  constructor(root) {
    this.root = new URL(root, globalThis.location?.href).href.replace(/\/+$/, '');
  }

  /** Without a public URL the service names paths below its root. */
  at(url) {
    return url.startsWith('/') ? this.root + url : url;
  }

  absolute(urls = {}) {
    return Object.fromEntries(Object.entries(urls).map(([name, url]) => [name, this.at(url)]));
  }

  /**
   * By XMLHttpRequest: `fetch` reports no progress of a request. A stream as its body would, but Chromium sends one by
   * HTTP/2 only, and Firefox and Safari not at all.
   */
  post(path, form, headers, signal, progress) {
    const request = new XMLHttpRequest();
    request.open('POST', this.at(path));
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.onprogress = ({ loaded, total }) => progress(loaded, total);
    return until(signal, (done, failed) => {
      request.onload = () => {
        const body = parsed(request.responseText);
        if (request.status === 202) done(body);
        else failed(new UploadError(request.status, body, seconds(request.getResponseHeader('Retry-After'))));
      };
      request.onerror = () => failed(new UploadError(0, {
        code: 'no_answer',
        detail: `No answer came from ${this.root}: it is out of reach, or does not allow ${globalThis.location?.origin}.`,
      }));
      request.send(form);
    }, () => request.abort());
  }

  /** A job's status; with `wait`, once the job has ended or so many seconds have passed. */
  async status(jobId, authorization, wait = 0, signal = null) {
    const headers = { Authorization: authorization, ...(wait ? { Prefer: `wait=${wait}` } : {}) };
    const answer = await fetch(`${this.root}/api/v1/images/jobs/${jobId}`, { headers, signal, cache: 'no-store' });
    const body = parsed(await answer.text());
    if (answer.status === 404) return { job_id: jobId, status: 'not_found', ready: [], urls: {} };
    if (!answer.ok) throw new UploadError(answer.status, body, seconds(answer.headers.get('Retry-After')));
    return body;
  }
}

/** Follows all jobs by one event stream; while that can't be had, by long-poll. */
class Follower {
  #service;
  #jobs = new Map();
  #changed = new AbortController();
  #runs = false;
  #lastId = null;

  constructor(service) {
    this.#service = service;
  }

  add(jobId, listener) {
    this.#jobs.set(jobId, listener);
    this.#lastId = null; // the new job's present state may be older than the last event
    this.#changed.abort();
    if (!this.#runs) void this.#run();
  }

  remove(jobId) {
    this.#jobs.delete(jobId);
    if (!this.#jobs.size) this.#changed.abort();
  }

  async #run() {
    this.#runs = true;
    for (let failures = 0; this.#jobs.size;) {
      await slept(SETTLE_MS);
      this.#changed = new AbortController();
      const { signal } = this.#changed;
      try {
        const followed = this.#jobs.size;
        await this.#stream(signal);
        if (this.#jobs.size === followed) throw new Error('The stream had no events.');
        failures = 0;
      } catch {
        if (signal.aborted) continue; // another job is to be followed too
        failures += 1;
        await this.#poll(signal).catch(() => slept(1000 * 2 ** Math.min(failures, 5), signal).catch(() => {}));
      }
    }
    this.#runs = false;
  }

  /** `EventSource` can't send the token or ticket that private reading asks for. */
  async #stream(signal) {
    const followed = [...this.#jobs].slice(0, MAX_JOBS);
    const headers = { Authorization: await followed[0][1].authorization() };
    if (this.#lastId) headers['Last-Event-ID'] = this.#lastId;
    const stopped = new AbortController();
    signal.addEventListener('abort', () => stopped.abort());
    const path = `/api/v1/images/events?jobs=${followed.map(([jobId]) => jobId).join(',')}`;
    const wait = () => setTimeout(() => stopped.abort(), SILENCE_MS);
    let timer = wait();
    try {
      const answer = await fetch(this.#service.root + path, { headers, signal: stopped.signal, cache: 'no-store' });
      if (!answer.ok) throw new UploadError(answer.status, {});
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let text = ''; ;) {
        const { done, value } = await reader.read();
        if (done) return;
        clearTimeout(timer);
        timer = wait();
        const blocks = (text + value).split('\n\n');
        text = blocks.pop();
        for (const block of blocks) this.#onEvent(block);
      }
    } finally {
      clearTimeout(timer);
    }
  }

  /** An event of a stream (HTML Living Standard, section 9.2); the service ends lines with a line feed. */
  #onEvent(block) {
    const fields = Object.fromEntries(block.split('\n').map((line) => line.split(/: ?(.*)/s, 2)));
    if (fields.id) this.#lastId = fields.id;
    if (!fields.data) return; // a comment
    const news = JSON.parse(fields.data);
    if (fields.event === 'status') this.#onStatus(news); // it says what the events `ready` before it say, in its order
    if (fields.event === 'end') this.#onEnd(news);
  }

  /** Tell what is ready, the smallest first: a status lists the largest first. */
  #onStatus({ job_id: jobId, ready, urls, thumbhash = null, dominant_color = null }) {
    for (const variant of [...ready].reverse()) {
      this.#jobs.get(jobId)?.ready({ variant, url: urls[variant], thumbhash, dominant_color });
    }
  }

  #onEnd(job) {
    const listener = this.#jobs.get(job.job_id);
    this.#jobs.delete(job.job_id);
    listener?.end(job);
  }

  /** Wait for the first job, then look at the others: one request at a time, since connections are scarce. */
  async #poll(signal) {
    let wait = POLL_SECONDS;
    for (const [jobId, listener] of [...this.#jobs]) {
      const job = await this.#service.status(jobId, await listener.authorization(), wait, signal);
      this.#onStatus(job);
      if (['completed', 'failed', 'not_found'].includes(job.status)) this.#onEnd(job);
      wait = 0;
    }
  }
}

function shownFirst(color, hash) {
  const url = hash && placeholder(hash);
  return { color, hash, url, css: [color, url && `url(${url}) center / 100% 100%`].filter(Boolean).join(' ') };
}

/**
 * A `data:` URL of the small picture that a ThumbHash stands for.
 * @param {string} hash  Base64, as the service sends it.
 */
export function placeholder(hash) {
  const { width, height, rgba } = thumbhashPixels(hash);
  return `data:image/png;base64,${base64(png(width, height, rgba))}`;
}

/**
 * The pixels of a ThumbHash (https://evanw.github.io/thumbhash/): a cosine series each of lightness, of two colour
 * differences and of alpha, in four bits a coefficient.
 * @param {string} hash  Base64.
 * @param {number} [side]  Pixels of the longer side.
 * @param {boolean} [square]  Both sides are as long, for a place that is stretched to the ratio of its picture.
 * @returns {{ width: number, height: number, rgba: Uint8ClampedArray }}
 */
export function thumbhashPixels(hash, side = 32, square = false) {
  const bytes = Uint8Array.from(atob(hash), (letter) => letter.charCodeAt(0));
  const bits = bitReader(bytes);
  const [light, yellow, red] = [bits(6) / 63, bits(6) / 31.5 - 1, bits(6) / 31.5 - 1];
  const lightScale = bits(5) / 31;
  const hasAlpha = bits(1) === 1;
  const shortTerms = bits(3);
  const [yellowScale, redScale] = [bits(6) / 63, bits(6) / 63];
  const isLandscape = bits(1) === 1;
  const [alpha, alphaScale] = hasAlpha ? [bits(4) / 15, bits(4) / 15] : [1, 0];
  const longTerms = hasAlpha ? 5 : 7;
  const [across, down] = isLandscape ? [longTerms, shortTerms] : [shortTerms, longTerms];
  const series = (start, scale, nx, ny) => [{ x: 0, y: 0, value: start }, ...terms(nx, ny).map(([x, y]) => (
    { x, y, value: 2 * (bits(4) / 7.5 - 1) * scale }))];
  const channels = [series(light, lightScale, Math.max(3, across), Math.max(3, down)),
    series(yellow, 1.25 * yellowScale, 3, 3), series(red, 1.25 * redScale, 3, 3)]; // 1.25: the format's saturation
  channels.push(hasAlpha ? series(alpha, alphaScale, 5, 5) : [{ x: 0, y: 0, value: 1 }]);
  const ratio = square ? 1 : across / down;
  const [width, height] = [Math.round(side * Math.min(1, ratio)), Math.round(side / Math.max(1, ratio))];
  const [columns, rows] = [cosines(width), cosines(height)];
  const rgba = new Uint8ClampedArray(4 * width * height);
  for (let at = 0; at < width * height; at += 1) {
    const [u, v] = [at % width, Math.floor(at / width)];
    const [l, p, q, a] = channels.map((channel) => channel.reduce(
      (sum, { x, y, value }) => sum + value * columns[x][u] * rows[y][v], 0));
    const blue = l - 2 / 3 * p;
    const [r, g] = [(3 * l - blue + q) / 2, (3 * l - blue - q) / 2];
    rgba.set([r, g, blue, a].map((one) => Math.round(255 * Math.min(1, Math.max(0, one)))), 4 * at);
  }
  return { width, height, rgba };
}

/** cosines(length)[n][i]: the n-th wave at the middle of pixel i. */
const cosines = (length) => Array.from({ length: 8 }, (_, wave) =>
  Array.from({ length }, (_, pixel) => Math.cos(wave * (pixel + 0.5) * Math.PI / length)));

/** The frequencies of a channel, in the order of the format: a triangle without its first corner. */
function terms(nx, ny) {
  const found = [];
  for (let y = 0; y < ny; y += 1) {
    for (let x = y ? 0 : 1; x * ny < nx * (ny - y); x += 1) found.push([x, y]);
  }
  return found;
}

/** Reads numbers of some bits, the lowest first. */
function bitReader(bytes) {
  let at = 0;
  return (count) => {
    let value = 0;
    for (let bit = 0; bit < count; bit += 1, at += 1) value |= ((bytes[at >> 3] >> (at & 7)) & 1) << bit;
    return value;
  };
}

/** A PNG whose data are stored, not compressed. A canvas would do, but privacy settings alter what it gives back. */
function png(width, height, rgba) {
  const rows = new Uint8Array(height * (4 * width + 1)); // each begins with its filter: 0, none
  for (let y = 0; y < height; y += 1) rows.set(rgba.subarray(4 * width * y, 4 * width * (y + 1)), y * (4 * width + 1) + 1);
  const [low, high] = [rows.length & 255, rows.length >> 8];
  const stored = [0x78, 1, 1, low, high, low ^ 255, high ^ 255, ...rows, ...fourBytes(adler32(rows))];
  return Uint8Array.of(137, 80, 78, 71, 13, 10, 26, 10,
    ...chunk('IHDR', [...fourBytes(width), ...fourBytes(height), 8, 6, 0, 0, 0]), ...chunk('IDAT', stored), ...chunk('IEND', []));
}

function chunk(name, data) {
  const body = [...Array.from(name, (letter) => letter.charCodeAt(0)), ...data];
  return [...fourBytes(data.length), ...body, ...fourBytes(crc32(body))];
}

const fourBytes = (number) => [number >>> 24, (number >>> 16) & 255, (number >>> 8) & 255, number & 255];

function adler32(bytes) {
  let [a, b] = [1, 0];
  for (const byte of bytes) [a, b] = [(a + byte) % 65521, (a + b + byte) % 65521];
  return b * 65536 + a;
}

function crc32(bytes) {
  let sum = -1;
  for (const byte of bytes) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit += 1) sum = (sum >>> 1) ^ (sum & 1 ? 0xedb88320 : 0);
  }
  return ~sum;
}

const base64 = (bytes) => btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(''));

/** `crypto.randomUUID` needs HTTPS. */
const newKey = () => Array.from(crypto.getRandomValues(new Uint32Array(4)), (one) => one.toString(16)).join('-');

/** A promise that `begin(done, failed)` settles; the signal ends it first, and `cancel(done)` cleans up then. */
function until(signal, begin, cancel) {
  return new Promise((done, failed) => {
    const aborted = () => {
      cancel(done);
      failed(signal.reason);
    };
    if (signal?.aborted) {
      failed(signal.reason);
      return;
    }
    signal?.addEventListener('abort', aborted, { once: true });
    const ended = (settle) => (value) => {
      signal?.removeEventListener('abort', aborted);
      settle(value);
    };
    begin(ended(done), ended(failed));
  });
}

function slept(ms, signal = null) {
  let timer;
  return until(signal, (done) => { timer = setTimeout(done, ms); }, () => clearTimeout(timer));
}

function parsed(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}

/** The seconds of Retry-After (RFC 9110 section 10.2.3), from a number or a date. */
function seconds(text) {
  if (!text) return null;
  const number = /^\d+$/.test(text.trim()) ? Number(text) : (Date.parse(text) - Date.now()) / 1000;
  return Number.isNaN(number) ? null : Math.max(0, number);
}
