// The audit trail of a job in words.

import { ago, bytes } from './format.js';
import { el, foreign } from './dom.js';

const list = (names) => (names ?? []).join(', ');
const because = (code) => (code ? ` (${code})` : '');

const WORDS = {
  accepted: ({ bytes: size }) => `The upload was accepted${size ? `, ${bytes(size)}` : ''}.`,
  processing: ({ queue, run }) => `A worker began ${queue === 'previews' ? 'the preview' : 'the variants'}${run > 1 ? `, run ${run}` : ''}.`,
  preview_done: () => 'The preview was ready.',
  preview_none: () => 'No preview could be made; the variants follow all the same.',
  preview_failed: () => 'The preview failed; the variants follow all the same.',
  completed: ({ reused }) => (reused ? 'Completed, with the files of an upload of the same bytes.' : 'Completed.'),
  twin_declined: () => 'The files of an upload of the same bytes could not be used: it is rendered.',
  retrying: ({ code }) => `An attempt failed${because(code)} and is repeated.`,
  failed: ({ code }) => `Failed${because(code)}.`,
  given_back: () => 'The run was ended for a stop of the service; the job waited again.',
  replayed: () => 'The service had ended during the run; the job waited again.',
  retried: () => 'The operator retried the job.',
  updated: ({ members }) => `Changed: ${list(members).replace('client_metadata', 'metadata').replace('expires_at', 'expiry').replace('focal', 'focal point')}.`,
  moved: ({ before, after }) => `Moved from the storage ${before} to ${after}.`,
  deleted: () => 'Deleted.',
  expired: () => 'Expired.',
  render_ordered: ({ variants }) => `To be made anew: ${list(variants)}.`,
  rendered_again: ({ variants }) => `Made anew: ${list(variants)}.`,
  render_requeued: ({ variants }) => `The run for ${list(variants)} was ended; it waited again.`,
  render_replayed: ({ variants }) => `The service had ended while it made ${list(variants)} anew; it waited again.`,
  render_retrying: ({ variants, code }) => `Making ${list(variants)} anew failed${because(code)} and is repeated.`,
  render_failed: ({ variants, code }) => `${list(variants)} could not be made anew${because(code)}.`,
};

const words = ({ event, facts }) => (Object.hasOwn(WORDS, event) ? WORDS[event](facts) : event.replaceAll('_', ' '));

/** Items of a list, as they came: the newest first. */
export const happened = (events) => events.map((one, place) =>
  el('li', { 'data-key': String(events.length - place) }, ago(one.created_at), ' ', foreign(words(one))));
