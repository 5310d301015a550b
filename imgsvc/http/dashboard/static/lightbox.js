// One picture, large, with all that is known of it. Which one it is stands in the address, so that "back" closes it.

import { everywhere, here, snippets } from './addresses.js';
import { ask, at, pathOf } from './api.js';
import { copyable, empty, facts, state, table } from './components.js';
import { byId, el, foreign, keepingFocus, setText, update } from './dom.js';
import { ago, bytes, number } from './format.js';
import { FocalPoint } from './focal.js';
import { kept, nameOf } from './grid.js';
import { Metadata } from './metadata.js';
import { placeholder } from './thumbhash.js';

const SWIPE = 50; // pixels
const ID = /^#([0-9a-f-]{36})$/i;
const PATCH = 'application/merge-patch+json';

export class Lightbox {
  #shown = null; // the operator's answer about the image on the page
  #wanted = null; // the ID of the image that should be there
  #variant = null; // whose addresses are shown
  #from = null; // where a swipe began

  /** `grid` has the neighbours; `more()` loads further ones; `remove(ids, name)` begins a deletion. */
  constructor(grid, { cut, more, remove, tell }) {
    Object.assign(this, { grid, cut: new Set(cut), more, remove, tell, dialog: byId('lightbox'), stage: byId('stage') });
    this.focal = new FocalPoint(this.stage, (point) => this.#change({ focal: point }, 'The focal point was saved.'), tell);
    this.metadata = new Metadata({ redraw: () => this.draw(), change: (members) => this.#change(members, 'The metadata was saved.'), tell });
    addEventListener('popstate', () => this.follow());
    addEventListener('hashchange', () => this.follow());
    this.dialog.addEventListener('cancel', (event) => {
      event.preventDefault();
      if (this.focal.choosing) this.focal.end();
      else if (this.metadata.editing) this.metadata.end();
      else this.close();
    });
    this.dialog.addEventListener('keydown', (event) => this.#pressed(event));
    this.stage.addEventListener('pointerdown', (event) => { this.#from = event.pointerType === 'touch' ? [event.clientX, event.clientY] : null; });
    this.stage.addEventListener('pointerup', (event) => this.#swiped(event));
    this.stage.addEventListener('pointercancel', () => { this.#from = null; });
  }

  get id() {
    return this.#wanted;
  }

  /** Show what the address names, or nothing. */
  follow() {
    const id = ID.exec(location.hash)?.[1].toLowerCase() ?? null;
    if (id === this.#wanted) return;
    if (id === null) this.#hide();
    else void this.#show(id);
  }

  open(id) {
    history.pushState({ opened: true }, '', `#${id}`);
    this.follow();
  }

  close() {
    if (history.state?.opened) history.back();
    else {
      history.replaceState(null, '', location.pathname + location.search);
      this.follow();
    }
  }

  async step(by) {
    const place = this.grid.placeOf(this.#wanted) + by;
    if (place >= this.grid.items.length && by > 0) await this.more();
    const next = this.grid.items[place];
    if (!next || place < 0) return this.tell(by > 0 ? 'This is the last picture.' : 'This is the first picture.');
    history.replaceState(history.state, '', `#${next.id}`);
    return this.follow();
  }

  async #show(id) {
    this.#wanted = id;
    this.focal.end();
    const known = this.grid.items[this.grid.placeOf(id)];
    this.#shown = null;
    if (!this.dialog.open) this.dialog.showModal();
    this.#blank(known);
    try {
      const shown = await ask(`api/v1/operator/images/${pathOf(id)}`);
      if (this.#wanted === id) this.#take(shown);
    } catch (refused) {
      if (this.#wanted !== id) return;
      setText(byId('shown-name'), refused.status === 404 ? 'This picture is gone.' : 'This picture can’t be shown.');
      update(byId('shown-body'), [empty(refused.message)]);
    }
  }

  #hide() {
    const id = this.#wanted;
    this.#wanted = null;
    this.focal.end();
    this.stage.replaceChildren();
    this.dialog.close();
    const place = this.grid.placeOf(id);
    if (place >= 0) this.grid.focus(place);
  }

  /** What can be said at once: the name, and the colours of the picture. */
  #blank(known) {
    setText(byId('shown-name'), known ? nameOf(known) : 'Loading…');
    update(byId('shown-body'), [empty('Loading…')]);
    this.stage.replaceChildren(...(known ? [placeholder(known.hash)].filter(Boolean) : []));
    this.stage.style.backgroundColor = known?.color ?? '';
    byId('shown-name').focus({ preventScroll: true });
  }

  #take(shown) {
    const first = this.#shown?.image_id !== shown.image_id;
    this.#shown = shown;
    if (first || !shown.ready.includes(this.#variant)) this.#variant = shown.ready[0] ?? null;
    if (first) this.#picture();
    this.draw();
  }

  #picture() {
    const { ready, urls, variants, original_filename: name, image_id: id, status } = this.#shown;
    const whole = ready.filter((one) => !this.cut.has(one));
    const enough = whole.findLast((one) => variants[one].width >= this.stage.clientWidth * Math.min(2, devicePixelRatio));
    const best = enough ?? whole[0] ?? ready[0];
    if (best === undefined) return this.stage.replaceChildren(empty(status === 'failed' ? 'This upload failed: there is no picture.' : 'There is no picture yet.'));
    const image = el('img', { src: here(urls[best]), alt: name ?? `Image ${id}`, width: variants[best].width, height: variants[best].height, draggable: 'false' });
    image.addEventListener('load', () => this.stage.querySelector('canvas')?.remove(), { once: true });
    image.addEventListener('error', () => this.stage.replaceChildren(empty('The picture did not load.')), { once: true });
    return this.stage.append(el('div', { class: 'frame-of' }, image));
  }

  draw() {
    if (!this.#shown) return;
    const image = this.#shown;
    keepingFocus(() => {
      setText(byId('shown-name'), image.original_filename ?? `Image ${image.image_id}`);
      update(byId('shown-body'), [
        ...this.#about(image), ...this.#addresses(image), ...this.#focus(image), ...this.#expiry(image),
        part('Metadata'), ...this.metadata.part(image),
        part('What happened'), el('ol', { class: 'happened', 'data-key': 'happened' }, image.events.map(happened)),
        el('p', { class: 'actions', 'data-key': 'delete' }, button('delete-shown', 'Delete this picture', { class: 'danger' })),
      ]);
    });
    this.focal.mark(image.focal);
  }

  #about(image) {
    const { dimensions: sides } = image;
    const rows = image.ready.map((name) => {
      const { width, height, format, size_bytes: size } = image.variants[name];
      const link = el('a', { href: here(image.urls[name]), target: '_blank', rel: 'noopener' }, name);
      return { key: name, cells: [link, `${number(width)} × ${number(height)}`, format, bytes(size)] };
    });
    return [
      facts(
        ['State', state(image.status)], ['Bucket', foreign(image.bucket)],
        image.user_id === null ? null : ['Uploaded by', el('span', {}, foreign(image.user_id), ' of ', foreign(image.org_id))],
        ['Uploaded', ago(image.created_at)],
        ['Upload', `${image.mime_type}, ${bytes(image.content_length)}${sides ? `, ${number(sides.width)} × ${number(sides.height)}` : ''}`],
        ['Stored', bytes(image.size_bytes)], ['Image ID', el('code', {}, image.image_id)],
        ['Job', el('a', { href: at(`dashboard/jobs/${pathOf(image.job_id)}`) }, 'All about the job')]),
      ...(rows.length ? [part('Variants'), table('Variants', ['Variant', 'Pixels', 'Format', 'Size'], rows, 'variants')] : []),
    ];
  }

  #addresses(image) {
    if (this.#variant === null) return [];
    const options = image.ready.map((name) => el('option', { value: name, selected: name === this.#variant }, name));
    const lines = Object.entries(snippets(image, this.#variant, this.cut)).map(([kind, text]) =>
      el('div', { class: 'field', 'data-key': kind }, el('span', { class: 'muted small' }, kind), copyable(text, `${kind} of ${this.#variant}`)));
    const signed = new URL(everywhere(image.urls[this.#variant])).searchParams.has('signature');
    return [
      part('Addresses'),
      el('p', { class: 'field', 'data-key': 'variant' }, el('label', { for: 'variant' }, 'Of the variant'), el('select', { id: 'variant' }, options)),
      ...lines,
      signed ? el('p', { class: 'muted', 'data-key': 'signed' }, 'Reading is private: these addresses are signed and end after a while.') : null,
    ].filter(Boolean);
  }

  #focus(image) {
    if (image.status !== 'completed') return [];
    const where = image.focal
      ? `${number(100 * image.focal.x)} % from the left, ${number(100 * image.focal.y)} % from the top.` : 'The centre of attention, as measured.';
    const making = image.rendering.length ? ` Being rendered again: ${image.rendering.join(', ')}.` : '';
    return [
      part('Focal point'),
      el('p', { 'data-key': 'focal' }, `Crops are made around it. ${where}${making}`),
      el('p', { class: 'actions', 'data-key': 'focal-buttons' },
        button('focal', 'Set the focal point', { 'aria-pressed': String(this.focal.choosing) }), ' ',
        image.focal ? button('no-focal', 'Use the centre of attention') : null),
    ];
  }

  #expiry(image) {
    if (image.status !== 'completed') return [];
    const value = image.expires_at ? local(image.expires_at) : '';
    return [
      part('Expiry'),
      el('p', { 'data-key': 'expires' }, image.expires_at ? el('span', {}, 'Expires ', ago(image.expires_at), '.') : 'Never.'),
      el('p', { class: 'inline', 'data-key': `expiry ${image.image_id}` },
        el('label', { for: 'expires' }, 'Expires at'), el('input', { id: 'expires', type: 'datetime-local', value }),
        button('expire', 'Save'), image.expires_at ? button('keep', 'Never') : null),
    ];
  }

  /** Whether it was taken. */
  async #change(members, words) {
    const id = this.#wanted;
    try {
      const changed = await ask(`api/v1/operator/images/${pathOf(id)}`, { method: 'PATCH', json: members, headers: { 'Content-Type': PATCH } });
      if (this.#wanted !== id) return false;
      this.#take({ ...this.#shown, ...changed });
      this.grid.replace(kept(this.#shown));
      this.tell(words);
      return true;
    } catch (refused) {
      this.tell(refused.message, true);
      return false;
    }
  }

  /** What the buttons of the panel do, by their data-action. */
  get actions() {
    return {
      close: () => this.close(),
      previous: () => this.step(-1),
      next: () => this.step(1),
      focal: () => this.#choose(),
      'no-focal': () => this.#change({ focal: null }, 'Crops are made around the centre of attention.'),
      expire: () => this.#expireAt(byId('expires').value),
      keep: () => this.#change({ expires_at: null }, 'It does not expire.'),
      'delete-shown': () => this.#delete(),
      ...this.metadata.actions,
    };
  }

  #choose() {
    if (this.focal.choosing) this.focal.end();
    else this.focal.begin(this.#shown.focal);
    this.draw();
  }

  #delete() {
    if (!this.#shown) return;
    const { image_id: id, original_filename: name } = this.#shown;
    this.close();
    this.remove([id], name ?? `Image ${id}`);
  }

  #expireAt(text) {
    const moment = new Date(text);
    if (Number.isNaN(moment.getTime())) return this.tell('Choose a day and a time first.', true);
    return this.#change({ expires_at: moment.toISOString() }, 'The expiry was saved.');
  }

  choose(variant) {
    this.#variant = variant;
    this.draw();
  }

  #pressed(event) {
    if (event.target.closest('input, select, textarea, code') || event.ctrlKey || event.metaKey || event.altKey) return;
    if (this.focal.pressed(event)) {
      event.preventDefault();
      if (!this.focal.choosing) this.draw();
      return;
    }
    const acts = { ArrowLeft: () => this.step(-1), ArrowRight: () => this.step(1), Delete: () => this.#delete() };
    if (!Object.hasOwn(acts, event.key)) return;
    event.preventDefault();
    void acts[event.key]();
  }

  #swiped({ clientX, clientY }) {
    if (!this.#from || this.focal.choosing) return;
    const across = clientX - this.#from[0], down = Math.abs(clientY - this.#from[1]);
    this.#from = null;
    if (Math.abs(across) > SWIPE && Math.abs(across) > 2 * down) void this.step(across > 0 ? -1 : 1);
  }
}

const part = (words) => el('h3', { 'data-key': `part ${words}` }, words);

const button = (action, words, more = {}) => el('button', { type: 'button', 'data-action': action, ...more }, words);

const happened = ({ created_at: moment, words }, place, events) =>
  el('li', { 'data-key': String(events.length - place) }, ago(moment), ' ', foreign(words));

/** A moment for a field of the browser, which has no time zone: that of the person. */
function local(timestamp) {
  const moment = new Date(timestamp);
  return new Date(moment.getTime() - moment.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}
