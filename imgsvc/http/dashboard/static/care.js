// The pages of care: their forms are sent to the API as JSON, and the answer is said in words.

import { ask, pathOf } from './api.js';
import { copyable } from './components.js';
import { byId, el, setText } from './dom.js';
import { count } from './format.js';
import { announce } from './frame.js';

const REASONS = {
  url: 'the address is malformed', name: 'the host is unknown', address: 'the address is not allowed', connect: 'no connection',
  tls: 'the certificate is wrong', timeout: 'no answer in time', answer: 'the answer is malformed', too_large: 'the answer is too large',
};
const SEEN_MS = 900; // so that the words are read before the page is fetched again
const HOUR = 3600;
const words = (text) => text.split(/\s+/).filter(Boolean);

// What a field says, by its data-kind.
const KINDS = {
  flag: ({ checked }) => checked,
  unless: ({ checked }) => !checked,
  hours: ({ value }) => Number(value) * HOUR,
  words: ({ value }) => words(value),
};

/** The members of the request. Fields without a name or without text say nothing. */
function membersOf(form) {
  const members = {};
  for (const field of form.elements) {
    const { kind } = field.dataset;
    if (kind === 'buckets') {
      if (field.value.trim()) members.narrower = { buckets: words(field.value) };
    } else if (field.name && (kind || field.value)) members[field.name] = kind ? KINDS[kind](field) : field.value;
  }
  return members;
}

const again = () => setTimeout(() => location.reload(), SEEN_MS);

// What is done with an answer, by the form's data-done; returns the words.
const DONE = {
  reload: () => (again(), 'Done.'),
  test: ({ ok, status, reason, milliseconds }) => `${ok ? 'Delivered' : 'Not delivered'}: ${status ?? REASONS[reason] ?? reason}, ${milliseconds} ms.`,
  replay: ({ replayed }) => `${count(replayed, 'delivery', 'deliveries')} wait again.`,
  erase: () => (again(), 'Everything of this person is being erased.'),
  key({ key, name }) {
    byId('created').replaceChildren(
      el('p', { class: 'notice warn' }, `The key of ${name} is shown this once: copy it now.`), copyable(key, `key of ${name}`),
      el('p', {}, el('button', { type: 'button', 'data-action': 'reload' }, 'I have it')));
    return 'Created.';
  },
};

/** The request of a form: {path, json, question}. Null, after having said why, if something is missing. */
function requestOf(form, say) {
  const { path, ask: question = '', done } = form.dataset, members = membersOf(form);
  if (done !== 'erase') return { path, json: Object.keys(members).length || form.dataset.method === 'POST' ? members : undefined, question };
  const { 'erase-user': user, 'erase-org': org, 'erase-again': repeated } = members;
  if (user !== repeated) return say('The two names of the user differ.');
  return { path: `${path}/${pathOf(org)}/${pathOf(user)}`, question: question.replace('{user}', () => `${user} of ${org}`) };
}

document.addEventListener('submit', async (event) => {
  const form = event.target;
  if (!form.dataset.path) return;
  event.preventDefault();
  const say = (text) => {
    setText(form.querySelector('.said'), text);
    announce(text);
    return null;
  };
  const wanted = requestOf(form, say);
  if (!wanted || (wanted.question && !confirm(wanted.question))) return;
  say('Asking…');
  try {
    const answer = await ask(wanted.path, { method: form.dataset.method, json: bodyOf(wanted) });
    say((DONE[form.dataset.done] ?? DONE.reload)(answer));
  } catch (refused) {
    say(refused.message);
  }
});

/** Testing and switching on take no body; an empty object is harmless to the others. */
const bodyOf = ({ path, json }) => (/\/(test|enable)$/.test(path) ? undefined : json);

document.addEventListener('click', ({ target }) => {
  if (target.closest?.('[data-action="reload"]')) location.reload();
});
