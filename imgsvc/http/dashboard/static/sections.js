// The sections with facts: machine, database, storage, limits, Redis, configuration.

import { el, foreign } from './dom.js';
import { ago, count, duration, gigabytes, megabytes, number, percent, shortTime } from './format.js';
import { empty, facts, meter, path, state, table } from './components.js';

const DEFAULT_ORG = 'default-org';
const FULL = 100;
const NEVER_HIGH = Infinity; // renders are meant to use all of it

export function checks({ health }) {
  return Object.entries(health.checks).sort().map(([name, check]) =>
    el('li', { 'data-key': name },
      state(check.status, name),
      el('span', { class: 'unseen' }, ` is ${check.status}: `),
      el('span', { class: 'muted' }, check.detail)));
}

const disk = (label, one) =>
  meter(label, one.percent, `${percent(one.percent)}, ${gigabytes(one.free_gb)} of ${gigabytes(one.total_gb)} free`);

export function system({ system: { resources, uptime_human, version }, operator }) {
  const { cpu, memory, process } = resources;
  return [
    meter('Processor', cpu.percent, `${percent(cpu.percent)} of ${count(cpu.count, 'core')}`, NEVER_HIGH),
    meter('Memory', memory.percent, `${percent(memory.percent)}, ${gigabytes(memory.available_gb)} of ${gigabytes(memory.total_gb)} free`),
    disk('System disk', resources.disk_root),
    facts(
      ['Running for', uptime_human],
      ['Version', version],
      ['Memory of the service', megabytes(process.memory_rss_mb)],
      ['Threads', number(process.threads)],
      ['Refused sign-ins, last hour', number(operator.refused_attempts_last_hour)],
    ),
  ];
}

export function database({ database: one }) {
  const { tables, recent_activity: recent } = one;
  return [
    facts(
      ['State', state(one.connection_ok ? one.status : 'unhealthy', one.connection_ok ? one.status : 'no connection')],
      ['File', path(one.path)],
      ['Size', megabytes(one.size_mb)],
      ['Jobs', number(tables.processing_jobs)],
      ['Events', number(tables.image_upload_events)],
      ['Upload counters', number(tables.upload_rate_limits)],
      ['Last job', ago(recent.last_job_created)],
      ['Last event', ago(recent.last_event_logged)],
    ),
  ];
}

export function storage({ storage: one }) {
  const { local, s3 } = one;
  return [
    local?.disk ? disk('Disk of the pictures', local.disk) : null,
    facts(
      ['Backend', { local: 'local folder', s3: 'S3' }[one.backend] ?? foreign(one.backend)],
      ['Images', number(one.total_images)],
      one.set_aside.files && ['Uploads set aside', number(one.set_aside.files)],
      local && ['Folder', path(local.path)],
      local && ['Reserved space', megabytes(local.reserve_mb)],
      s3 && ['Bucket', foreign(s3.bucket)],
      s3 && ['Region', foreign(s3.region)],
      s3 && ['At', s3.endpoint === null ? 'AWS' : foreign(s3.endpoint)],
    ),
    local && !local.disk ? empty('The folder can\'t be read: check that it exists and is mounted.') : null,
  ].filter(Boolean);
}

export function rateLimits({ rate_limits: limits }) {
  return [
    facts(
      ['Uploads per user and hour', number(limits.max_uploads_per_hour, 1)],
      ['Users with uploads now', number(limits.total_active_windows)],
    ),
    ...(limits.users_near_limit.length ? limits.users_near_limit.map(nearLimit) : [empty('No user is near the limit.')]),
  ];
}

function nearLimit(one) {
  const who = one.org_id === DEFAULT_ORG ? one.user_id : `${one.user_id} (${one.org_id})`;
  return meter(who, one.percent_used, `${number(one.count)} of ${number(one.limit)} since ${shortTime(Date.parse(one.window_start))}`, FULL);
}

export function redis({ redis: one }) {
  const known = Object.entries(one.info).map(([name, value]) => [name.replaceAll('_', ' '), foreign(value)]);
  return [
    facts(['State', state(one.status, one.connected ? one.status : `${one.status}, not connected`)], ...known),
    one.connected ? null : empty('Until Redis responds again, each instance counts its own uploads. Check REDIS_URL and the log of Redis.'),
  ].filter(Boolean);
}

export function configuration({ configuration: sections }) {
  return Object.entries(sections).map(([name, values]) =>
    el('div', { class: 'settings', 'data-key': name },
      el('h3', {}, name),
      facts(...Object.entries(values).map(([key, value]) => [key, value === '' ? '(empty)' : foreign(value, { class: 'path' })]))));
}

export function lanes({ queue, workers }) {
  const rows = workers.processes.map((one) => ({
    key: one.name,
    cells: [
      foreign(one.name),
      state(one.state),
      one.job_id ? foreign(one.job_id, { class: 'id', title: one.job_id }) : '–',
      duration(one.busy_seconds),
      one.rss_mb === null ? '–' : megabytes(one.rss_mb),
      number(one.jobs_done),
      number(one.restarts),
    ],
  }));
  return [
    facts(
      ['Waiting for a preview', number(queue.previews)],
      ['Waiting for a render', number(queue.renders)],
      ['Waiting for a retry', number(queue.retrying)],
      ['Longest wait', queue.oldest_waiting_seconds === null ? 'no job is waiting' : duration(queue.oldest_waiting_seconds)],
    ),
    rows.length ? table('Workers', ['Worker', 'State', 'Job', 'For', 'Memory', 'Done', 'Restarts'], rows, 'lanes')
      : empty('There is no worker. Check [workers] count and the log.'),
  ];
}
