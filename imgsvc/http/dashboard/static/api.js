// Requests to the service this page came from, wherever its proxy has put it.

const ROOT = new URL('../../', import.meta.url); // this script is {root}/dashboard/static/api.js

export const at = (path) => new URL(path, ROOT).href;

const UNSAFE = { 'X-Requested-With': 'imgsvc' };

/** An answer that is an error: `detail` says in words why. `status` is 0 when there was no answer at all. */
export class Refused extends Error {
  constructor(status, detail, code = '', retryAfter = null) {
    super(detail);
    Object.assign(this, { status, detail, code, retryAfter });
  }
}

/** What a failed answer says, as problem+json does; something readable too when a proxy made it. */
export function refusal(status, body, retryAfter) {
  let problem = null;
  try {
    problem = JSON.parse(body);
  } catch {
    // not ours: a proxy's page
  }
  const told = typeof problem?.detail === 'string' ? problem.detail : null;
  const details = (problem?.details ?? []).map((one) => `${one.loc?.at(-1)}: ${one.msg}`).join('; ');
  const detail = told ?? (status >= 502 && status <= 504 ? `no answer behind the proxy (${status})` : `error ${status}`);
  const seconds = Number.parseInt(retryAfter ?? '', 10);
  const code = typeof problem?.code === 'string' ? problem.code : '';
  return new Refused(status, details ? `${detail} (${details})` : detail, code, Number.isNaN(seconds) ? null : seconds);
}

/** The answer's JSON, or null where it has none. Raises Refused. */
export async function ask(path, { method = 'GET', json, headers = {}, limit = 15_000 } = {}) {
  const sent = method === 'GET' ? headers : { ...UNSAFE, ...headers };
  const body = json === undefined ? undefined : JSON.stringify(json);
  if (body !== undefined) sent['Content-Type'] = 'application/json';
  const signal = AbortSignal.timeout(limit);
  let answer, text;
  try {
    answer = await fetch(at(path), { method, body, headers: sent, signal, cache: 'no-store' });
    text = await answer.text();
  } catch (error) {
    const late = error.name === 'TimeoutError';
    throw new Refused(0, late ? `no answer within ${limit / 1000} seconds` : 'the service can not be reached');
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
