// Throughput and processing times, and the recent jobs with their thumbnails.

import { charts } from './chart.js';
import { el, foreign } from './dom.js';
import { ago, bytes, duration, number } from './format.js';
import { copyable, curlLine, jobLink, state, table, thumbnail } from './components.js';
import { isEmpty } from './summary.js';

const STATES = ['pending', 'processing', 'retrying', 'completed', 'failed'];

export function processing(data) {
  const { jobs_by_status: byStatus, performance, minutes } = data.processing;
  const names = [...STATES, ...Object.keys(byStatus).filter((name) => !STATES.includes(name))];
  return [
    el('ul', { class: 'tiles', 'data-key': 'tiles' }, names.map((name) =>
      el('li', { 'data-key': name, class: byStatus[name] ? null : 'none' }, el('strong', {}, number(byStatus[name] ?? 0)), state(name)))),
    el('div', { 'data-key': 'spans' }, spans(performance)),
    el('div', { 'data-key': 'charts' }, charts(minutes, data.system.timestamp)),
  ];
}

function spans({ last_hour: hour, last_24h: day }) {
  const rows = [['Last hour', hour], ['Last 24 hours', day]].map(([name, span]) => ({
    key: name,
    cells: [
      name, number(span.total), number(span.completed), number(span.failed),
      duration(span.avg_processing_time_seconds), duration(span.avg_ready_seconds),
    ],
  }));
  return table('Finished jobs', ['Span', 'Ended', 'Completed', 'Failed', 'Processing, average', 'Accepted to ready, average'], rows, 'numbers');
}

export function recentJobs(data) {
  const jobs = data.processing.recent_jobs;
  if (!jobs.length) return [firstUpload(data)];
  const rows = jobs.map((job) => ({
    key: job.job_id,
    cells: [
      el('div', { class: 'picture' }, thumbnail(job, `Thumbnail of ${job.original_filename ?? job.image_id}`), jobLink(job)),
      state(job.status),
      foreign(job.bucket),
      job.user_id === null ? '–' : foreign(job.user_id),
      bytes(job.content_length),
      ago(job.created_at),
      job.completed_at ? duration((Date.parse(job.completed_at) - Date.parse(job.began_at)) / 1000) : '–',
    ],
  }));
  return [table('Recent jobs', ['Job', 'State', 'Bucket', 'User', 'Size', 'Accepted', 'Took'], rows, 'jobs')];
}

function firstUpload(data) {
  const ours = data.operator.can_make_tokens || !data.operator.signed_in;
  return el('div', { class: 'empty', 'data-key': 'first' },
    el('p', {}, isEmpty(data) ? 'No photo yet. Send the first one:' : 'The list is empty. Send another photo:'),
    copyable(curlLine(ours), 'the upload command'),
    el('p', { class: 'muted' }, ours
      ? 'Run this in the folder of imgsvc. Where it is installed or in its container, use imgsvc token instead of ./run token.'
      : 'TOKEN is a token from your identity provider.'));
}
