// The operator's upload section: dropped or chosen files, their progress, thumbnails and URLs.

import { byId, el, foreign, keepingFocus, setText, update } from './dom.js';
import { bytes, whole } from './format.js';
import { Tokens, newKey, send } from './send.js';

const AT_ONCE = 3;
const BUCKET = 'photos';
const STATES = { waiting: 'waiting', sending: 'sending', accepted: 'accepted, being processed', completed: 'ready', failed: 'not uploaded' };

const uploads = []; // newest first
let open = false;
let running = 0;
let numbered = 0;
let tokens = null;
let tell = () => {};
let onEnded = () => {};

/** Show the section if the operator may use it. Called with each response of the service. */
export function allowUploads(operator) {
  open = operator.may_act;
  byId('upload').hidden = !open;
  byId('token-field').hidden = operator.can_make_tokens;
  if (!tokens || tokens.renewable !== operator.can_make_tokens) {
    tokens = new Tokens(operator.can_make_tokens ? null : () => byId('token').value.trim());
  }
}

export function startUploads({ announce, refresh }) {
  tell = announce;
  onEnded = refresh;
  byId('files').addEventListener('change', ({ target }) => {
    take(target.files);
    target.value = '';
  });
  let depth = 0; // enter and leave events also come from child elements
  const carriesFiles = (event) => open && event.dataTransfer?.types.includes('Files');
  const highlight = (change) => {
    depth = Math.max(0, depth + change);
    document.body.classList.toggle('dropping', depth > 0);
  };
  window.addEventListener('dragenter', (event) => carriesFiles(event) && highlight(1));
  window.addEventListener('dragleave', (event) => carriesFiles(event) && highlight(-1));
  window.addEventListener('dragover', (event) => event.preventDefault()); // else a missed drop would leave the page
  window.addEventListener('drop', (event) => {
    event.preventDefault();
    highlight(-depth);
    if (carriesFiles(event)) take(event.dataTransfer.files);
  });
}

function take(files) {
  const bucket = byId('bucket').value.trim() || BUCKET;
  for (const file of files) {
    numbered += 1;
    uploads.unshift({ id: numbered, file, bucket, key: newKey(), state: 'waiting', fraction: 0 });
  }
  next();
}

function next() {
  const waiting = uploads.filter((one) => one.state === 'waiting').reverse();
  for (const one of waiting.slice(0, Math.max(0, AT_ONCE - running))) void carry(one);
  draw();
}

async function carry(one) {
  running += 1;
  Object.assign(one, { state: 'sending', fraction: 0, problem: null });
  const report = (news) => {
    if (news.thumbnail) tell(`${one.file.name}: the thumbnail is ready.`);
    Object.assign(one, news);
    draw();
  };
  try {
    await send(one, tokens, report);
    tell(`${one.file.name} is ready.`);
  } catch (refused) {
    const later = refused.retryAfter ? ` Try again in ${whole(refused.retryAfter)}.` : '';
    one.again = !one.jobId && mayHelp(refused.status);
    report({ state: 'failed', note: null, problem: `${refused.message}${/[.!?]$/.test(refused.message) ? '' : '.'}${later}` });
    tell(`${one.file.name}: ${one.problem}`);
  }
  running -= 1;
  onEnded();
  next();
}

function draw() {
  const one = uploads.length;
  keepingFocus(() => update(byId('uploads'), uploads.map(view)));
  byId('clear').hidden = !uploads.some(isOver);
  setText(byId('clear'), one > 1 ? 'Clear finished uploads' : 'Clear');
}

/** Whether sending the same file again could succeed. */
const mayHelp = (status) => status === 0 || status >= 500 || [401, 408, 429].includes(status);

const isOver = (one) => one.state === 'completed' || one.state === 'failed';

function view(one) {
  const share = Math.round(one.fraction * 100);
  return el('li', { 'data-key': String(one.id), class: one.state },
    one.thumbnail ? el('img', { class: 'thumb', src: one.thumbnail, alt: `Thumbnail of ${one.file.name}`, width: 72, height: 72 })
      : el('span', { class: 'thumb none', 'aria-hidden': 'true' }),
    el('div', { class: 'about' },
      el('div', { class: 'name' }, foreign(one.file.name), ' ', el('span', { class: 'muted' }, bytes(one.file.size))),
      isOver(one) ? null : el('progress', {
        'aria-label': `Sending ${one.file.name}`, max: 100, value: one.state === 'accepted' ? null : share,
      }),
      el('div', { class: 'muted' }, words(one, share)),
      one.note ? el('div', {}, foreign(one.note)) : null,
      one.problem ? el('div', { class: 'problem' }, foreign(one.problem)) : null,
      one.state === 'failed' && one.again
        ? el('button', { type: 'button', 'data-action': 'again', 'data-upload': one.id, 'aria-label': `Send ${one.file.name} again` }, 'Send again')
        : null,
      one.urls ? el('ul', { class: 'urls' }, one.urls.map(([name, url]) => address(name, url, one.file.name))) : null));
}

function words(one, share) {
  if (one.state === 'sending' && share < 100) return `sending, ${share} %`;
  return one.state === 'failed' && one.jobId ? 'accepted, but processing failed' : STATES[one.state];
}

const address = (name, url, file) => el('li', { 'data-key': name },
  el('a', { href: url, title: url }, name),
  el('button', { type: 'button', 'data-action': 'copy', 'data-copy': url, 'aria-label': `Copy the address of ${name} of ${file}` }, 'Copy'));

export function again(id) {
  const one = uploads.find((each) => String(each.id) === id);
  if (one?.state === 'failed') {
    one.state = 'waiting';
    next();
  }
}

export function clearEnded() {
  const left = uploads.filter((one) => !isOver(one));
  uploads.splice(0, uploads.length, ...left);
  draw();
}
