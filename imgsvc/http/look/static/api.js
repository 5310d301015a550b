// Requests to the service that sent this page, behind any path prefix.

const ROOT = new URL('../../', import.meta.url); // this script is {root}/dashboard/static/api.js

export const at = (path) => new URL(path, ROOT).href;

const UNSAFE = { 'X-Requested-With': 'imgsvc' };

/** An error response: `detail` says in words what is wrong, and what helps. `status` is 0 if there was no response. */
export class Refused extends Error {
  constructor(status, detail, code = '', retryAfter = null) {
    super(detail);
    Object.assign(this, { status, detail, code, retryAfter });
  }
}

/** Read an error response: problem+json, or something readable if a proxy sent it. */
export function refusal(status, body, retryAfter) {
  let problem = null;
  try {
    problem = JSON.parse(body);
  } catch {
    // not ours: a proxy's page
  }
  const told = words(problem?.detail);
  const details = (problem?.details ?? []).map((one) => `${one.loc?.at(-1)}: ${one.msg}`).join('; ');
  const reason = words(problem?.reason) ?? details; // the first of the details in words, or what the file is
  const detail = told ?? (status >= 502 && status <= 504 ? `no response behind the proxy (${status})` : `error ${status}`);
  const seconds = Number.parseInt(retryAfter ?? '', 10);
  const code = words(problem?.code) ?? '';
  return new Refused(status, reason ? `${detail}${ENDED.test(detail) ? '' : '.'} ${reason}` : detail, code, Number.isNaN(seconds) ? null : seconds);
}

const ENDED = /[.!?]$/;

const words = (value) => (typeof value === 'string' ? value : null);

/** The response's JSON, or null if it has none. Raises Refused. */
export async function ask(path, { method = 'GET', json, headers = {}, limit = 15_000 } = {}) {
  const sent = method === 'GET' ? { ...headers } : { ...UNSAFE, ...headers };
  const body = json === undefined ? undefined : JSON.stringify(json);
  if (body !== undefined) sent['Content-Type'] ??= 'application/json';
  const signal = AbortSignal.timeout(limit);
  let answer, text;
  try {
    answer = await fetch(at(path), { method, body, headers: sent, signal, cache: 'no-store' });
    text = await answer.text();
  } catch (error) {
    const late = error.name === 'TimeoutError';
    throw new Refused(0, late ? `no response within ${limit / 1000} seconds` : 'the service can\'t be reached');
  }
  if (!answer.ok) throw refusal(answer.status, text, answer.headers.get('Retry-After'));
  try {
    return text ? JSON.parse(text) : null;
  } catch {
    throw new Refused(0, 'something else than the service answered');
  }
}

export const post = (path, json) => ask(path, { method: 'POST', json });

export const pathOf = (id) => encodeURIComponent(id);
