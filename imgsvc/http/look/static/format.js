// Formats numbers, sizes and times.

import { el } from './dom.js';

const MINUTE = 60, HOUR = 3600, DAY = 86_400;
const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const shortClock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit' });
const exact = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'long' });

let serverTime = Date.now();
let measuredAt = performance.now();

/** Ages are computed by the service's clock: the browser's may be wrong. */
export function setServerTime(timestamp) {
  const given = Date.parse(timestamp);
  serverTime = Number.isNaN(given) ? Date.now() : given;
  measuredAt = performance.now();
}

const serverNow = () => serverTime + performance.now() - measuredAt;

export const number = (value, digits = 0) =>
  value.toLocaleString('en', { maximumFractionDigits: digits, minimumFractionDigits: 0 });

export const percent = (value) => `${number(value, value < 10 ? 1 : 0)} %`;

export const gigabytes = (value) => `${number(value, value < 10 ? 2 : 0)} GB`;

export const megabytes = (value) => (value >= 1024 ? gigabytes(value / 1024) : `${number(value, value < 10 ? 1 : 0)} MB`);

export const bytes = (value) => (value < 1024 * 1024 ? `${number(Math.ceil(value / 1024))} kB` : megabytes(value / 1024 / 1024));

/** '0.8 s', '45 s', '3 min', '2 h 5 min', '3 d 4 h'; an en dash if there is no value. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return '–';
  if (seconds < 10) return `${number(seconds, 1)} s`;
  if (seconds < MINUTE) return `${Math.floor(seconds)} s`;
  if (seconds < 10 * MINUTE) return joined(seconds, MINUTE, 'min', 1, 's');
  if (seconds < HOUR) return `${Math.floor(seconds / MINUTE)} min`;
  return seconds < DAY ? joined(seconds, HOUR, 'h', MINUTE, 'min') : joined(seconds, DAY, 'd', HOUR, 'h');
}

function joined(seconds, large, largeName, small, smallName) {
  const rest = Math.floor((seconds % large) / small);
  return `${Math.floor(seconds / large)} ${largeName}${rest ? ` ${rest} ${smallName}` : ''}`;
}

export const clockTime = (moment) => clock.format(moment);

export const shortTime = (moment) => shortClock.format(moment);

/** 'just now', '35 s ago', 'in 40 s', with the exact time as a tooltip. */
export function ago(timestamp) {
  const moment = timestamp ? Date.parse(timestamp) : NaN;
  if (Number.isNaN(moment)) return el('span', {}, '–');
  return el('time', { datetime: timestamp, title: exact.format(moment) }, agoWords((serverNow() - moment) / 1000));
}

function agoWords(seconds) {
  if (seconds < -1) return `in ${whole(-seconds)}`;
  return seconds < 2 ? 'just now' : `${whole(seconds)} ago`;
}

export function whole(seconds) {
  const units = [[DAY, 'd'], [HOUR, 'h'], [MINUTE, 'min']];
  const [size, name] = units.find(([size]) => seconds >= size) ?? [1, 's'];
  return `${Math.floor(seconds / size)} ${name}`;
}

export const count = (amount, one, many = `${one}s`) => `${number(amount)} ${amount === 1 ? one : many}`;
