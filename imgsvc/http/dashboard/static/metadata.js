// The uploader's metadata of a picture: shown, and changed line by line.

import { empty } from './components.js';
import { byId, el, foreign } from './dom.js';

const shownAs = (value) => (typeof value === 'string' ? value : JSON.stringify(value));

export class Metadata {
  #editing = null; // the ID of the image whose lines are fields

  /** `redraw()` shows the part again; `change(members)` sends a merge patch and says whether it was taken. */
  constructor({ redraw, change, tell }) {
    Object.assign(this, { redraw, change, tell });
    byId('shown-body').addEventListener('keydown', (event) => {
      if (event.key !== 'Enter' || !event.target.matches('.pair input')) return;
      event.preventDefault();
      void this.#save();
    });
  }

  get editing() {
    return this.#editing !== null;
  }

  /** Nodes for the panel. While lines are being changed they stay as they are, whatever else is drawn. */
  part(image) {
    if (this.#editing !== image.image_id) this.#editing = null;
    this.image = image;
    return this.editing ? this.#fields(image) : this.#lines(image);
  }

  end() {
    if (!this.editing) return;
    this.#editing = null;
    this.redraw();
    this.#focus('button[data-action="edit-metadata"]');
  }

  get actions() {
    return {
      'edit-metadata': () => this.#begin(),
      'add-line': () => this.#add(),
      'remove-line': (button) => this.#remove(button.closest('.pair')),
      'save-metadata': () => this.#save(),
      'leave-metadata': () => this.end(),
    };
  }

  #lines({ client_metadata: metadata, status }) {
    const entries = Object.entries(metadata);
    return [
      entries.length
        ? el('dl', { class: 'facts', 'data-key': 'metadata' }, entries.map(([name, value]) =>
          el('div', {}, el('dt', {}, foreign(name)), el('dd', {}, foreign(shownAs(value))))))
        : el('p', { class: 'muted', 'data-key': 'no metadata' }, 'There is none.'),
      status === 'completed' ? el('p', { class: 'actions', 'data-key': 'edit-metadata' },
        el('button', { type: 'button', 'data-action': 'edit-metadata' }, 'Edit metadata')) : null,
    ].filter(Boolean);
  }

  #fields({ client_metadata: metadata, image_id: id }) {
    const entries = Object.entries(metadata);
    return [
      el('div', { class: 'pairs', 'data-key': `pairs ${id}`, 'data-keep': true, role: 'group', 'aria-label': 'Metadata' },
        (entries.length ? entries : [['', '']]).map(([name, value]) => pair(name, shownAs(value)))),
      el('p', { class: 'actions', 'data-key': `pairs-buttons ${id}` },
        el('button', { type: 'button', 'data-action': 'save-metadata', class: 'main' }, 'Save metadata'),
        el('button', { type: 'button', 'data-action': 'add-line' }, 'Add a line'),
        el('button', { type: 'button', 'data-action': 'leave-metadata', class: 'quiet' }, 'Cancel')),
    ];
  }

  #focus(selector) {
    byId('shown-body').querySelector(selector)?.focus();
  }

  #begin() {
    this.#editing = this.image.image_id;
    this.redraw();
    this.#focus('.pair input');
  }

  #add() {
    byId('shown-body').querySelector('.pairs').append(pair('', ''));
    this.#focus('.pair:last-child input');
  }

  #remove(line) {
    const next = line.nextElementSibling ?? line.previousElementSibling;
    line.remove();
    if (next) next.querySelector('button').focus();
    else this.#focus('button[data-action="add-line"]');
  }

  async #save() {
    const lines = [...byId('shown-body').querySelectorAll('.pair')]
      .map((line) => [...line.querySelectorAll('input')].map(({ value }) => value))
      .filter(([name, value]) => name !== '' || value !== '');
    const names = new Set(lines.map(([name]) => name));
    if (names.has('')) return this.tell('Each line needs a name.', true);
    if (names.size < lines.length) return this.tell('Each name may be there once only.', true);
    if (!await this.change({ client_metadata: changes(this.image.client_metadata, lines) })) return undefined;
    return this.end();
  }
}

const pair = (name, value) => el('div', { class: 'pair' },
  el('input', { value: name, 'aria-label': 'Name', placeholder: 'Name', autocomplete: 'off', dir: 'auto' }),
  el('input', { value, 'aria-label': name ? `Value of ${name}` : 'Value', placeholder: 'Value', autocomplete: 'off', dir: 'auto' }),
  el('button', { type: 'button', 'data-action': 'remove-line', 'aria-label': name ? `Remove ${name}` : 'Remove this line' }, '✕'));

/** The merge patch (RFC 7396) from what is there to the lines of the fields; what was no text stays none if it can. */
function changes(before, lines) {
  const wanted = new Map(lines), members = new Map();
  for (const name of Object.keys(before)) if (!wanted.has(name)) members.set(name, null);
  for (const [name, text] of wanted) {
    const was = Object.hasOwn(before, name) ? before[name] : '';
    if (!Object.hasOwn(before, name) || text !== shownAs(was)) members.set(name, typeof was === 'string' ? text : valueOf(text));
  }
  return Object.fromEntries(members);
}

function valueOf(text) {
  try {
    return JSON.parse(text) ?? text;
  } catch {
    return text;
  }
}
