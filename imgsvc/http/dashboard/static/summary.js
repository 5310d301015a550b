// A one-sentence summary of the service's state, and what to do about faults.

import { el } from './dom.js';
import { count, number } from './format.js';

const DAY = 86_400_000;
const MANY_REFUSED = 10;
const MANY_FAILED = 5; // jobs of the last hour, and also
const FAILED_SHARE = 0.2; // of those that ended in it: below this, single broken files are the likely reason

// For each check: the fault, and what to do about it.
const TROUBLE = {
  database: (data) => [
    'the database can\'t be written',
    `Uploads are refused until it works. Check that ${data.database.path} is on a disk with free space and belongs to the service's user; the log has the reason.`,
  ],
  storage: (data) => [
    'the storage does not work',
    data.storage.local
      ? `Jobs wait and are retried. Check that ${data.storage.local.path} exists, is mounted, and is writable for the service's user.`
      : 'Jobs wait and are retried. Check that the object storage responds and that its keys are still valid.',
  ],
  staging: () => [
    'the folder for uploads was removed',
    'It is created again automatically, but jobs whose uploads were in it can\'t continue. Find out what removed it: it is the folder staging next to the database.',
  ],
  instance: () => [
    'the folders do not belong to this service',
    'Check DATABASE_PATH and STORAGE_PATH, and that their disks are mounted. For a new folder: imgsvc storage adopt, while the service is stopped.',
  ],
  workers: (data) => [
    data.health.checks.workers.status === 'unhealthy' ? 'no worker is alive' : 'a worker is missing',
    'Uploads are accepted and kept. Workers are restarted automatically; if this continues, the log has the reason (often too little memory).',
  ],
  disk: () => [
    'the disk is full',
    'New uploads are refused; accepted ones are still processed. Make room, or lower [storage] reserve_mb.',
  ],
  queue: () => [
    'jobs wait for a long time',
    'More uploads arrive than can be processed. Nothing is lost; if this continues, raise [workers] count and memory_mb.',
  ],
  authorization: (data) => [
    'the authorization server does not respond',
    data.configuration.auth?.fail_open === 'true'
      ? 'Until it responds, any valid token may do everything: see AUTH_FAIL_OPEN. Details are at /api/v1/health/auth.'
      : 'Uploads and deletions get 503, except by users whose permissions are cached; images are served. Details are at /api/v1/health/auth.',
  ],
};

/** {level: good | warn | bad, line, advice, notes: contents of <li>}. The line contains no changing number. */
export function verdictOf(data) {
  const failing = Object.entries(data.health.checks).filter(([, check]) => check.status !== 'healthy');
  failing.sort(([, a], [, b]) => (b.status === 'unhealthy') - (a.status === 'unhealthy'));
  const troubles = failing.map(([name]) => TROUBLE[name]?.(data) ?? [`${name} is not healthy`, 'See the log.']);
  const advice = failing.map(([name, check], place) => `${sentence(`${name}: ${check.detail}`)} ${troubles[place][1]}`);
  const failed = failedHere(data);
  if (failed.length) {
    troubles.push(['jobs failed that can be retried']);
    advice.push([`${count(failed.length, 'job')} failed because of the service. See `, errors(), ': fix the cause, then retry.']);
  } else if (data.errors.retrying.length) {
    troubles.push(['jobs failed and will be retried']);
    advice.push([`${count(data.errors.retrying.length, 'job')} will be retried automatically. For the cause see `, errors(), '.']);
  }
  if (manyFail(data)) {
    const hour = data.processing.performance.last_hour;
    troubles.push(['many jobs fail']);
    advice.push([`${number(hour.failed)} of the ${count(hour.total, 'job')} that ended in the last hour failed. See `, errors(), '.']);
  }
  const level = data.health.status === 'unhealthy' ? 'bad' : troubles.length ? 'warn' : 'good';
  const what = troubles.map(([words]) => words).join('; ');
  const line = { bad: `Unhealthy: ${what}.`, warn: `Degraded: ${what}.`, good: 'All is well.' }[level];
  return { level, line: line.replace('Unhealthy: .', 'Unhealthy.'), advice, notes: notesOf(data) };
}

const link = (href, words) => el('a', { href }, words);

const errors = () => link('#errors-title', 'Errors');

const sentence = (words) => `${words.charAt(0).toUpperCase()}${words.slice(1)}.`;

/** Failures of the last day that are not caused by the file: their source is kept. */
function failedHere(data) {
  const now = Date.parse(data.system.timestamp);
  return data.errors.recent_failures.filter((one) => one.can_retry && now - Date.parse(one.failed_at) < DAY);
}

function manyFail({ processing: { performance: { last_hour: hour } } }) {
  return hour.failed >= MANY_FAILED && hour.failed >= hour.total * FAILED_SHARE;
}

function notesOf(data) {
  const notes = [];
  const refused = data.operator.refused_attempts_last_hour;
  const bad = data.errors.error_summary.last_hour;
  if (isEmpty(data)) {
    const drop = data.operator.may_act ? 'drop a photo on this page, or ' : '';
    notes.push([`Nothing has been uploaded yet: ${drop}send one with the `, link('#recent-title', 'line under Recent jobs'), '.']);
  } else if (bad && !failedHere(data).length && !manyFail(data)) {
    notes.push([`${count(bad, 'upload')} of the last hour could not be processed; see `, errors(), '.']);
  }
  if (data.redis.status === 'down') notes.push('Redis does not respond: until it does, each instance counts its own uploads.');
  if (refused >= MANY_REFUSED) {
    notes.push(`${count(refused, 'sign-in')} were refused in the last hour. If that was not you, check who can reach this page.`);
  }
  return notes;
}

export const isEmpty = (data) => data.database.tables.processing_jobs === 0 && data.processing.recent_jobs.length === 0;
