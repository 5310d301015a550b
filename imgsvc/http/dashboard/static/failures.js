// Failed jobs: the reason, what follows, and the operator's retry.

import { at, pathOf, post } from './api.js';
import { el, foreign } from './dom.js';
import { ago, count, number } from './format.js';
import { empty, facts, jobLink, state } from './components.js';

const ALIKE = 3; // failures with one code that are shown as a group
const NAMED = 3; // files that a group names

const asked = new Map(); // job id -> result of the retry requested on this page
const failedAt = new Map(); // job id -> when it failed, as listed now

export function failures({ errors, operator }) {
  const { error_summary: sum, retrying, recent_failures: failed } = errors;
  forget([...retrying, ...failed]);
  return [
    facts(
      ['Last hour', number(sum.last_hour)],
      ['Last 24 hours', number(sum.last_24h)],
      ['In all', number(sum.total)],
    ),
    retrying.length || failed.length
      ? el('ul', { class: 'failures', 'data-key': 'list' },
        retrying.map((one) => item(one, `retrying ${one.job_id}`, operator)),
        grouped(failed).flatMap((alike) => (alike.length < ALIKE
          ? alike.map((one) => item(one, `failed ${one.job_id}`, operator)) : [group(alike, operator)])))
      : empty(sum.total ? 'There are no failed jobs any more.' : 'Nothing has failed.'),
  ];
}

/** The failures by their code, each code where its latest one stands. */
function grouped(failed) {
  const groups = new Map();
  for (const one of failed) groups.set(one.error_code, [...(groups.get(one.error_code) ?? []), one]);
  return [...groups.values()];
}

/** Failures for the same reason: one line, and each of them on request. */
function group(alike, operator) {
  const [latest] = alike;
  const names = alike.map((one) => one.original_filename ?? one.job_id);
  const more = names.length > NAMED ? `, and ${names.length - NAMED} more` : '';
  return el('li', { 'data-key': `group ${latest.error_code}`, class: 'group' },
    el('details', { 'data-key': 'details' },
      el('summary', {},
        el('span', { class: 'why' }, foreign(latest.why)), ` ${count(alike.length, 'job')}, the latest `, ago(latest.failed_at),
        el('span', { class: 'muted names' }, foreign(names.slice(0, NAMED).join(', ')), more)),
      el('ul', { class: 'alike' }, alike.map((one) => item(one, `failed ${one.job_id}`, operator)))));
}

function item(one, key, operator) {
  return el('li', { 'data-key': key },
    el('div', { class: 'what' },
      state(one.status),
      ' ', ago(one.failed_at ?? one.created_at),
      ' ', jobLink(one)),
    el('p', { class: 'why' }, foreign(one.why)),
    el('p', {}, foreign(one.advice)),
    one.error && one.error !== one.why ? el('p', { class: 'muted' }, foreign(one.error)) : null,
    el('p', { class: 'muted' },
      one.error_code ? el('a', { href: at(`errors/${pathOf(one.error_code)}`) }, one.error_code) : 'no code',
      `, ${count(one.attempts, 'attempt')}. `, future(one)),
    one.can_retry && operator.may_act ? retryButton(one) : null);
}

function future(one) {
  if (one.next_attempt_at) return el('span', {}, 'Retried automatically ', ago(one.next_attempt_at), '.');
  return one.can_retry ? 'Not retried automatically; the upload is still kept.' : 'Not retried: the result would be the same.';
}

function retryButton(one) {
  const said = asked.get(one.job_id);
  return el('div', { class: 'act', 'data-key': 'act' },
    el('button', {
      type: 'button', 'data-action': 'retry', 'data-job': one.job_id,
      'aria-label': `Retry job ${one.job_id}`, 'aria-disabled': said?.closed ? 'true' : null,
    }, said?.button ?? 'Retry'),
    said?.words ? el('span', { class: 'said' }, said.words) : null);
}

/** Request a retry. `tell` announces a sentence, `show` redraws the section. */
export async function retry(jobId, tell, show) {
  if (asked.get(jobId)?.closed) return;
  asked.set(jobId, { closed: true, button: 'Asking…' });
  show();
  try {
    await post(`api/v1/operator/jobs/${pathOf(jobId)}/retry`);
    asked.set(jobId, { closed: true, button: 'Retry accepted', failedAt: failedAt.get(jobId) });
    tell(`Job ${jobId} is being retried.`);
  } catch (refused) {
    asked.set(jobId, { words: `Not retried: ${refused.message}` });
    tell(`Job ${jobId} was not retried: ${refused.message}`);
  }
  show();
}

/** A requested retry is remembered until the job leaves the list or fails again. */
function forget(listed) {
  failedAt.clear();
  for (const one of listed) failedAt.set(one.job_id, one.failed_at);
  for (const [id, said] of asked) {
    if (!failedAt.has(id) || (said.failedAt && said.failedAt !== failedAt.get(id))) asked.delete(id);
  }
}
