// The dashboard's entry point: fetches the data, shows it, and reports when the service does not respond.

import { Refused, ask, at } from './api.js';
import { copy } from './clipboard.js';
import { byId, el, keepingFocus, setText, update } from './dom.js';
import { failures, retry } from './failures.js';
import { clockTime, setServerTime, whole } from './format.js';
import { processing, recentJobs } from './processing.js';
import { Refresh } from './refresh.js';
import * as sections from './sections.js';
import { signIn, signOut, takeCode } from './session.js';
import { again, allowUploads, clearEnded, startUploads } from './upload.js';
import { verdictOf } from './summary.js';
import { act, webhooks } from './webhooks.js';

const LIMIT_MS = 4000;
const SILENCE_MS = 50;
const SECTIONS = {
  checks: sections.checks,
  'processing-body': processing,
  'recent-body': recentJobs,
  'errors-body': failures,
  'lanes-body': sections.lanes,
  'system-body': sections.system,
  'storage-body': sections.storage,
  'database-body': sections.database,
  'limits-body': sections.rateLimits,
  'redis-body': sections.redis,
  'webhooks-body': webhooks,
  'configuration-body': sections.configuration,
};

let shown = null; // the last response, and when it arrived
let failedSince = null; // {words, title}: the first error after it
const refresh = new Refresh(load, countdown);

async function load() {
  try {
    const data = await ask('dashboard/data', { limit: LIMIT_MS });
    setServerTime(data.system.timestamp);
    shown = { data, at: Date.now() };
    failedSince = null;
    show();
  } catch (error) {
    if (!(error instanceof Refused)) console.error(error);
    gone(error);
  }
}

function show() {
  if (!shown) return;
  const { data } = shown;
  keepingFocus(() => {
    for (const [id, content] of Object.entries(SECTIONS)) update(byId(id), content(data));
    const { level, line, advice, notes } = verdictOf(data);
    verdict(level, line, [...advice, ...notes]);
    setText(byId('name'), data.system.service_name);
    document.title = `${{ good: '✓', warn: '!', bad: '✕' }[level]} ${data.system.service_name}`;
    byId('numbers').hidden = false;
    byId('redis').hidden = data.redis.status === 'disabled';
    byId('webhooks').hidden = data.webhooks.length === 0;
    byId('sign-in').hidden = data.operator.signed_in;
    byId('sign-out').hidden = !data.operator.signed_in;
    allowUploads(data.operator);
  });
}

function verdict(level, line, items) {
  document.body.className = document.body.classList.contains('dropping') ? `dropping ${level}` : level;
  setText(byId('verdict-line'), line);
  update(byId('advice'), items.map((words) => el('li', {}, words)));
}

function gone(error) {
  if (error.status === 401) {
    refresh.end();
    const way = el('li', {}, el('a', { href: at('dashboard/login') }, 'Sign in again'), ' with the operator token or a new link from imgsvc dashboard.');
    verdict('gone', 'The session has ended.', []);
    update(byId('advice'), [way, ...oldNumbers()]);
    return;
  }
  failedSince ??= Date.now();
  const from = clockTime(shown?.at ?? failedSince);
  const line = error.status ? `The service has responded with errors since ${from}.` : `No response since ${from}.`;
  verdict('gone', line, []);
  const reason = `${error.message.charAt(0).toUpperCase()}${error.message.slice(1)}. `;
  update(byId('advice'), [
    el('li', {}, reason, 'Check whether the service is running (its terminal, systemctl or docker compose ps), and check its log. This page keeps trying.'),
    ...oldNumbers(),
  ]);
  document.title = `✕ no response`;
  countdown();
}

const oldNumbers = () => (shown ? [el('li', {}, `The numbers below are from ${clockTime(shown.at)}.`)] : []);

let said = '';
function countdown(words = said) {
  said = words;
  setText(byId('countdown'), words);
  const since = shown?.at ?? failedSince;
  const age = since ? whole((Date.now() - since) / 1000) : '';
  if (document.body.classList.contains('gone')) setText(byId('age'), age && `${age} ago`);
  else setText(byId('age'), shown ? `${refresh.paused ? `Paused: numbers from ${clockTime(shown.at)}, ${age} ago` : `As of ${clockTime(shown.at)}`}` : '');
}

/** Announce to screen readers. A short pause without text makes them read the same words a second time. */
function announce(words) {
  setText(byId('announcements'), '');
  setTimeout(() => setText(byId('announcements'), words), SILENCE_MS);
}

const ACTIONS = {
  retry: ({ dataset }) => retry(dataset.job, announce, show).then(() => refresh.soon()),
  copy: (button) => copy(button, announce),
  webhook: ({ dataset }) => act(dataset, announce, show).then(() => refresh.soon()),
  again: ({ dataset }) => again(dataset.upload),
  clear: clearEnded,
  pause(button) {
    const live = button.getAttribute('aria-checked') !== 'true';
    button.setAttribute('aria-checked', String(live));
    refresh.pause(!live);
  },
  'sign-out': () => signOut().finally(() => location.replace(at('dashboard/login'))),
};

document.addEventListener('click', ({ target }) => {
  const button = target.closest?.('button[data-action]');
  if (button) void ACTIONS[button.dataset.action](button);
});

const code = takeCode();
if (code !== null) await signIn({ code }).catch(() => {}); // already signed in: this only uses up the code
startUploads({ announce, refresh: () => refresh.soon() });
refresh.start();
