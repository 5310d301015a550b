// Sends one file through the public API: token, upload, thumbnail, URLs.

import { Refused, ask, at, pathOf, post, refusal } from './api.js';
import { own } from './components.js';

const LOOK_MS = 200, LOOK_AGAIN_MS = 2000;
const SPARE_MS = 30_000; // a token this close to its expiry is not used
const WAIT_SECONDS = 30;

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** Upload tokens: issued by the service when needed, or pasted by the operator if an external issuer signs them. */
export class Tokens {
  #made = null;
  #asking = null;

  constructor(pasted) {
    this.pasted = pasted; // () => string, or null if the service issues tokens
  }

  async get(fresh = false) {
    if (this.pasted) {
      if (this.pasted()) return this.pasted();
      throw new Refused(401, 'Paste an upload token first.');
    }
    if (!fresh && this.#made && this.#made.until > performance.now()) return this.#made.token;
    this.#asking ??= post('api/v1/operator/token').finally(() => { this.#asking = null; });
    const { token, expires_in: seconds } = await this.#asking;
    this.#made = { token, until: performance.now() + seconds * 1000 - SPARE_MS };
    return token;
  }

  get renewable() {
    return !this.pasted;
  }
}

/** An idempotency key for one file: sending it again after a lost response makes no second image. Works without HTTPS too. */
export const newKey = () => Array.from(crypto.getRandomValues(new Uint32Array(4)), (one) => one.toString(16)).join('-');

/** Upload `one` ({file, bucket, key}) and wait for its job; `report({state, …})` is called at each step. Raises Refused. */
export async function send(one, tokens, report) {
  const receipt = await uploaded(one, tokens, (fraction) => report({ state: 'sending', fraction }));
  report({ state: 'accepted', fraction: 1, jobId: receipt.job_id, imageId: receipt.image_id });
  const job = await ended(receipt.job_id, () => picture(receipt.job_id, report), report);
  if (job.status === 'failed') throw new Refused(422, job.error ?? 'the job failed', job.error_code ?? '');
  const authorization = await tokens.get().then((token) => ({ Authorization: `Bearer ${token}` }), () => ({}));
  const { urls } = await ask(`api/v1/images/jobs/${pathOf(receipt.job_id)}/result`, { headers: authorization });
  report({ state: 'completed', note: null, urls: Object.entries(urls).map(([name, url]) => [name, absolute(url)]) });
}

/** Without a public URL the service returns URLs relative to its root. */
const absolute = (url) => (url.startsWith('/') ? own(url) : url);

/** The thumbnail's URL from the operator's data of the job: it works with private photos, and is of this origin, as the CSP requires. */
async function picture(jobId, report) {
  const { thumbnail_url: thumbnail } = await ask(`api/v1/operator/jobs/${pathOf(jobId)}`);
  if (thumbnail !== null) report({ thumbnail: own(thumbnail) });
}

async function uploaded(one, tokens, progress) {
  try {
    return await put(one, await tokens.get(), progress);
  } catch (refused) {
    if (refused.status !== 401 || !tokens.renewable) throw refused;
    return put(one, await tokens.get(true), progress);
  }
}

function put({ file, bucket, key }, token, progress) {
  const form = new FormData();
  form.append('bucket', bucket);
  form.append('file', file, file.name);
  const request = new XMLHttpRequest(); // fetch reports no upload progress
  request.open('POST', at('api/v1/images/upload'));
  request.setRequestHeader('Authorization', `Bearer ${token}`);
  request.setRequestHeader('Idempotency-Key', key);
  request.setRequestHeader('X-Requested-With', 'imgsvc');
  request.upload.onprogress = ({ loaded, total }) => progress(total ? loaded / total : 0);
  return new Promise((done, refused) => {
    request.onload = () => (request.status === 202
      ? done(JSON.parse(request.responseText))
      : refused(refusal(request.status, request.responseText, request.getResponseHeader('Retry-After'))));
    request.onerror = () => refused(new Refused(0, 'the connection broke before the receipt'));
    request.send(form);
  });
}

/** The job once it has ended: short polls until the first variant is ready, then one long wait at a time. */
async function ended(jobId, first, report) {
  let shown = false;
  for (;;) {
    try {
      const headers = shown ? { Prefer: `wait=${WAIT_SECONDS}` } : {};
      const job = await ask(`api/v1/images/jobs/${pathOf(jobId)}`, { headers, limit: (WAIT_SECONDS + 10) * 1000 });
      if (!shown && job.ready.length) {
        shown = true;
        await first().catch(() => {}); // the upload has succeeded, with or without a thumbnail
      }
      if (job.status === 'completed' || job.status === 'failed') return job;
      report({ note: job.status === 'retrying' ? `will be retried: ${job.error}` : null });
      if (!shown) await pause(LOOK_MS);
    } catch (refused) {
      if (refused.status === 404) throw refused;
      report({ note: 'no answer at the moment; the receipt was given, so the photo is kept' });
      await pause(LOOK_AGAIN_MS);
    }
  }
}
