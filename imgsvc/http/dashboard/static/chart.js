// Throughput and accept-to-ready time, minute by minute, over the last hour.

import { el, svg } from './dom.js';
import { duration, number, shortTime } from './format.js';
import { empty, table } from './components.js';

const MINUTES = 60;
const HEIGHT = 40;

/** The hour's minutes, oldest first; minutes without data are empty. */
function slots(minutes, now) {
  const last = Math.floor(now / 60_000);
  const hour = Array.from({ length: MINUTES }, (_, place) => ({
    start: (last - MINUTES + 1 + place) * 60_000, completed: 0, failed: 0, avg_ready_seconds: null,
  }));
  for (const minute of minutes) {
    const place = MINUTES - 1 - (last - Math.floor(Date.parse(minute.start) / 60_000));
    if (hour[place]) Object.assign(hour[place], minute, { start: hour[place].start });
  }
  return hour;
}

const words = (slot) =>
  `${shortTime(slot.start)}: ${number(slot.completed)} completed, ${number(slot.failed)} failed` +
  (slot.avg_ready_seconds === null ? '' : `, ready after ${duration(slot.avg_ready_seconds)}`);

function bar(place, from, height, kind) {
  if (!height) return null;
  return svg('rect', { class: kind, x: place + 0.12, width: 0.76, y: from, height });
}

const over = (slot, place, height) =>
  svg('rect', { class: 'over', x: place, width: 1, y: 0, height }, svg('title', {}, words(slot)));

function picture(label, height, zero, shapes) {
  const line = svg('line', { x1: 0, x2: MINUTES, y1: zero, y2: zero, class: 'zero' });
  const viewBox = `0 0 ${MINUTES} ${height}`;
  return svg('svg', { role: 'img', 'aria-label': label, viewBox, preserveAspectRatio: 'none', class: 'chart' }, shapes, line);
}

function throughput(hour) {
  const most = Math.max(...hour.map((slot) => slot.completed), 1);
  const worst = Math.max(...hour.map((slot) => slot.failed));
  const scale = HEIGHT / (most + worst);
  const zero = most * scale;
  const sum = (name) => hour.reduce((total, slot) => total + slot[name], 0);
  const label = `Last hour: ${number(sum('completed'))} completed, ${number(sum('failed'))} failed, at most ${number(most)} in a minute`;
  const shapes = hour.flatMap((slot, place) => [
    bar(place, zero - slot.completed * scale, slot.completed * scale, 'completed'),
    bar(place, zero, slot.failed * scale, 'failed'),
    over(slot, place, HEIGHT),
  ]);
  const title = worst ? 'Completed per minute (failed: below the line)' : 'Completed per minute';
  return figure(title, `max ${number(most)}`, picture(label, HEIGHT, zero, shapes));
}

function readiness(hour) {
  const times = hour.map((slot) => slot.avg_ready_seconds ?? 0);
  const longest = Math.max(...times);
  const scale = longest ? HEIGHT / longest : 0;
  const label = longest ? `From accepted to ready: at most ${duration(longest)} on average in a minute` : 'No image became ready';
  const shapes = hour.flatMap((slot, place) => [
    bar(place, HEIGHT - times[place] * scale, times[place] * scale, 'ready'),
    over(slot, place, HEIGHT),
  ]);
  return figure('From accepted to ready', longest ? `max ${duration(longest)}` : '–', picture(label, HEIGHT, HEIGHT, shapes));
}

function figure(title, most, drawing) {
  return el('figure', {},
    el('figcaption', {}, el('span', {}, title), el('span', { class: 'muted' }, most)),
    drawing,
    el('div', { class: 'axis muted', 'aria-hidden': 'true' }, el('span', {}, '1 h ago'), el('span', {}, '30 min'), el('span', {}, 'now')));
}

function asTable(hour) {
  const busy = hour.filter((slot) => slot.completed || slot.failed).reverse();
  const rows = busy.map((slot) => ({
    key: String(slot.start),
    cells: [shortTime(slot.start), number(slot.completed), number(slot.failed), duration(slot.avg_ready_seconds)],
  }));
  return el('details', { class: 'more' }, el('summary', {}, 'As a table'),
    table('The last hour by minute', ['Minute', 'Completed', 'Failed', 'Ready after'], rows));
}

export function charts(minutes, timestamp) {
  const hour = slots(minutes, Date.parse(timestamp));
  if (!hour.some((slot) => slot.completed || slot.failed)) return [empty('Nothing ended in the last hour.')];
  return [el('div', { class: 'charts' }, throughput(hour), readiness(hour)), asTable(hour)];
}
