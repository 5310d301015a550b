// Keeps a page fresh: fetches it again every five seconds and changes what differs, so that focus, selections, open
// details and loaded pictures stay. One request at a time, none while the page is hidden, none while it is paused.

import { at } from './api.js';
import { byId, el, keepingFocus, setText, update } from './dom.js';
import { clockTime, whole } from './format.js';
import { Refresh } from './refresh.js';

const LIMIT_MS = 4000;

let shownAt = Date.now();
const refresh = new Refresh(load, countdown);

/** Fetch the page soon, since something was done. */
export const soon = () => refresh.soon();

async function load() {
  let answer = null;
  let text = '';
  try {
    answer = await fetch(location.href, { headers: { Accept: 'text/html' }, cache: 'no-store', signal: AbortSignal.timeout(LIMIT_MS) });
    text = await answer.text();
  } catch {
    return gone(`No response since ${clockTime(shownAt)}.`, 'Check whether the service is running, and its log. This page keeps trying.');
  }
  if (answer.status === 401) {
    refresh.end();
    return gone('The session has ended.', el('a', { href: at('dashboard/login') }, 'Sign in again'), ' with the operator token or a new link from imgsvc dashboard.');
  }
  if (!answer.ok) return gone(`The service has responded with errors since ${clockTime(shownAt)}.`, detailOf(text), ' This page keeps trying.');
  show(new DOMParser().parseFromString(text, 'text/html'));
  shownAt = Date.now();
}

/** A page that this service has rendered is shown like one that it was asked for at first: nothing in it is run. */
function show(fresh) {
  keepingFocus(() => {
    update(byId('content'), [...fresh.getElementById('content').childNodes]);
    document.title = fresh.title;
    document.body.className = fresh.body.className;
  });
  byId('gone')?.remove();
}

function gone(line, ...advice) {
  document.body.classList.add('gone');
  document.title = `✕ ${line}`;
  const notice = el('section', { id: 'gone', class: 'notice bad', role: 'alert' },
    el('h1', {}, line),
    el('p', {}, ...advice),
    el('p', { class: 'muted' }, `What is shown is from ${clockTime(shownAt)}, `, el('span', { id: 'gone-age' }), ' ago.'));
  const present = byId('gone');
  if (present) update(present, [...notice.childNodes]);
  else byId('content').prepend(notice);
  age();
}

function detailOf(text) {
  try {
    return JSON.parse(text).detail ?? '';
  } catch {
    return ''; // a proxy's page
  }
}

function age() {
  const place = byId('gone-age');
  if (place) setText(place, whole((Date.now() - shownAt) / 1000));
}

function countdown(words) {
  const place = byId('countdown');
  if (place) setText(place, refresh.paused ? `paused, from ${clockTime(shownAt)}` : words);
  age();
}

/** Stop or go on. */
export function pause(button) {
  const live = button.getAttribute('aria-checked') !== 'true';
  button.setAttribute('aria-checked', String(live));
  refresh.pause(!live);
}

refresh.start();
