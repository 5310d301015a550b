// Components of the sections: facts, bars, tables, states, thumbnails.

import { at, pathOf } from './api.js';
import { el, foreign } from './dom.js';
import { number } from './format.js';

const SIGNS = {
  healthy: '✓', completed: '✓', degraded: '!', retrying: '↻', unhealthy: '✕', down: '✕', failed: '✕',
  pending: '…', processing: '▸', busy: '▸', idle: '–', starting: '…', disabled: '–',
};
const FORGET_AFTER = 15_000;
const missing = new Set();

/** A state as a sign and a word, and in addition a colour. */
export const state = (name, words = name) =>
  el('span', { class: `state ${name}` }, el('span', { class: 'sign', 'aria-hidden': 'true' }, SIGNS[name] ?? '·'), words);

export const facts = (...pairs) =>
  el('dl', { class: 'facts' }, pairs.filter(Boolean).map(([label, value]) =>
    el('div', { 'data-key': label }, el('dt', {}, label), el('dd', {}, value))));

export const empty = (...words) => el('p', { class: 'empty' }, ...words);

/** A bar of 0 to 100. From `high` on it is marked in words too. `label` is untrusted text if it names a user. */
export function meter(label, value, words, high = 90) {
  const share = Math.min(100, Math.max(0, value));
  const fill = el('div', { class: 'fill' });
  fill.style.width = `${share}%`;
  const level = share >= high ? 'meter high' : 'meter';
  const shown = share >= high ? `${value >= 100 ? 'full' : 'high'}: ${words}` : words;
  return el('div', { class: level, 'data-key': `meter ${label}` },
    el('div', { class: 'meter-words' }, foreign(label), el('span', { class: 'muted' }, shown)),
    el('div', {
      class: 'track', role: 'meter', 'aria-label': label, 'aria-valuemin': 0, 'aria-valuemax': 100,
      'aria-valuenow': number(share, 1), 'aria-valuetext': shown,
    }, fill));
}

/** Rows are {key, cells}; on a narrow screen each becomes a card, so every cell has its heading and role. */
export function table(caption, headings, rows, kind = '') {
  const head = headings.map((words) => el('th', { scope: 'col', role: 'columnheader' }, words));
  const body = rows.map(({ key, cells }) => el('tr', { 'data-key': key, role: 'row' }, cells.map((cell, place) =>
    el('td', { role: 'cell', 'data-label': headings[place] }, cell))));
  return el('table', { role: 'table', class: kind },
    el('caption', { class: 'unseen' }, caption),
    el('thead', { role: 'rowgroup' }, el('tr', { role: 'row' }, head)),
    el('tbody', { role: 'rowgroup' }, body));
}

/** The file's name where it is known, else the job's ID, which is the link's title in any case. */
export const jobLink = ({ job_id: id, original_filename: name = null }) =>
  el('a', {
    class: name === null ? 'id' : 'name', href: at(`api/v1/images/jobs/${pathOf(id)}`), title: id,
    'aria-label': name === null ? `Job ${id}` : `${name}, job ${id}`,
  }, name === null ? id : foreign(name));

/** Resolve a URL relative to the service's root, which may be behind a path prefix. */
export const own = (address) => at(`.${address}`);

/** The picture of a recent job, or an empty frame. */
export function thumbnail({ thumbnail_url: small, picture_url: large }, alt) {
  const source = small === null ? null : own(small);
  if (source === null || missing.has(source)) return el('span', { class: 'thumb none', 'aria-hidden': 'true' });
  return el('a', { class: 'thumb', href: own(large) },
    el('img', { src: source, alt, width: 44, height: 44, decoding: 'async' }));
}

document.addEventListener('error', ({ target }) => {
  if (!(target instanceof HTMLImageElement)) return;
  missing.add(target.src);
  setTimeout(() => missing.delete(target.src), FORGET_AFTER);
}, true);

/** A path may break at any character. */
export const path = (text) => foreign(text, { class: 'path' });

export const curlLine = (ours) =>
  `curl -H "Authorization: Bearer ${ours ? '$(./run token --sub me)' : '$TOKEN'}" ` +
  `-F bucket=photos -F file=@photo.jpg ${at('api/v1/images/upload')}`;

export const copyable = (text, label) =>
  el('div', { class: 'copyable' }, el('code', { tabindex: 0, 'aria-label': label }, text),
    el('button', { type: 'button', 'data-action': 'copy', 'data-copy': text, 'aria-label': `Copy ${label}` }, 'Copy'));
