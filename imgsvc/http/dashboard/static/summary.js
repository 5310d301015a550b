// One sentence that says whether all is well, and what to do if not.

import { el } from './dom.js';
import { count } from './format.js';

const DAY = 86_400_000;
const MANY_REFUSED = 10;

// By check: what is wrong, and what to do. `detail` is what the check itself found.
const TROUBLE = {
  database: (data) => [
    'the database can not be written',
    `Uploads are refused meanwhile. See that ${data.database.path} is on a disk with free space and belongs to the service's user; the log says why.`,
  ],
  storage: (data) => [
    'the storage does not work',
    data.storage.local
      ? `Jobs wait and are tried again. See that ${data.storage.local.path} is there, mounted and writable for the service's user.`
      : 'Jobs wait and are tried again. See that the object storage answers and that its keys are still good.',
  ],
  staging: () => [
    'the folder for uploads was removed',
    'It is made anew by itself; jobs whose uploads were in it can not go on. See who removed it: the folder staging beside the database.',
  ],
  instance: () => [
    'the folders are not those of this service',
    'See that DATABASE_PATH and STORAGE_PATH are right and their disks mounted. For a new folder: imgsvc storage adopt, while the service is stopped.',
  ],
  workers: (data) => [
    data.health.checks.workers.status === 'unhealthy' ? 'no worker is alive' : 'a worker is missing',
    'Uploads are accepted and kept. Workers are restarted by themselves; if this stays, the log says why they end (often too little memory).',
  ],
  disk: () => [
    'the disk is full',
    'New uploads are refused; accepted ones are still processed. Make room, or lower [storage] reserve_mb.',
  ],
  queue: () => [
    'jobs wait for long',
    'More comes in than is done. Nothing is lost; if it stays so, raise [workers] count and memory_mb.',
  ],
  authorization: (data) => [
    'the authorization server does not answer',
    data.configuration.auth?.fail_open === 'true'
      ? 'Meanwhile whoever has a valid token may do everything: see AUTH_FAIL_OPEN. /api/v1/health/auth says more.'
      : 'Uploads and deletions of users it has not just answered for get 503; images are served. /api/v1/health/auth says more.',
  ],
};

/** {level: good | warn | bad, line, advice, notes: what <li> takes}. The line holds no changing number. */
export function verdictOf(data) {
  const failing = Object.entries(data.health.checks).filter(([, check]) => check.status !== 'healthy');
  failing.sort(([, a], [, b]) => (b.status === 'unhealthy') - (a.status === 'unhealthy'));
  const troubles = failing.map(([name]) => TROUBLE[name]?.(data) ?? [`${name} is not healthy`, 'The log says more.']);
  const advice = failing.map(([name, check], place) => `${sentence(`${name}: ${check.detail}`)} ${troubles[place][1]}`);
  const failed = failedHere(data);
  if (failed.length) {
    troubles.push(['jobs failed that can be tried again']);
    advice.push([`${count(failed.length, 'job')} failed on the service's side. See `, errors(), ': remove the cause, then retry.']);
  } else if (data.errors.retrying.length) {
    troubles.push(['jobs failed and will be tried again']);
    advice.push([`${count(data.errors.retrying.length, 'job')} will be tried again without you. For the cause see `, errors(), '.']);
  }
  const level = data.health.status === 'unhealthy' ? 'bad' : troubles.length ? 'warn' : 'good';
  const what = troubles.map(([words]) => words).join('; ');
  const line = { bad: `Unhealthy: ${what}.`, warn: `Degraded: ${what}.`, good: 'All is well.' }[level];
  return { level, line: line.replace('Unhealthy: .', 'Unhealthy.'), advice, notes: notesOf(data) };
}

const link = (href, words) => el('a', { href }, words);

const errors = () => link('#errors-title', 'Errors');

const sentence = (words) => `${words.charAt(0).toUpperCase()}${words.slice(1)}.`;

/** Failures of the last day that are not the file's own fault: their source is kept. */
function failedHere(data) {
  const now = Date.parse(data.system.timestamp);
  return data.errors.recent_failures.filter((one) => one.can_retry && now - Date.parse(one.failed_at) < DAY);
}

function notesOf(data) {
  const notes = [];
  const refused = data.operator.refused_attempts_last_hour;
  const bad = data.errors.error_summary.last_hour;
  if (isEmpty(data)) {
    const drop = data.operator.may_act ? 'drop a photo on this page, or ' : '';
    notes.push([`Nothing has been uploaded yet: ${drop}send one with the `, link('#recent-title', 'line under Recent jobs'), '.']);
  } else if (bad && !failedHere(data).length) {
    notes.push([`${count(bad, 'upload')} of the last hour could not be processed; `, errors(), ' says why.']);
  }
  if (data.redis.status === 'down') notes.push('Redis does not answer: until it does, upload limits count on this instance alone.');
  if (refused >= MANY_REFUSED) {
    notes.push(`${count(refused, 'sign-in')} were refused in the last hour. If that was not you, see who can reach this page.`);
  }
  return notes;
}

export const isEmpty = (data) => data.database.tables.processing_jobs === 0 && data.processing.recent_jobs.length === 0;
