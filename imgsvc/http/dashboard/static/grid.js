// The grid of pictures: of all that are known, only those near the screen are on the page.

import { here } from './addresses.js';
import { state } from './components.js';
import { el, foreign } from './dom.js';
import { Rows, ratioOf } from './justified.js';
import { giveBack, placeholder } from './thumbhash.js';

const MOST = 240; // pictures on the page, besides those of the row that has the focus
const ENDED = 'completed';
const FRAME_MS = 8; // work in one frame, besides the rows in sight: then the next frame goes on
const AT_ONCE_MS = 150; // a picture that is there so soon is not faded in: each fading one is a layer of its own
const SHARP = 1.2; // a variant may be enlarged so much before the next larger one is taken

/** What the grid keeps of an image of a list: little, since there may be a hundred thousand. */
export const kept = (one) => ({
  id: one.image_id,
  name: one.original_filename,
  status: one.status,
  at: one.created_at,
  color: one.dominant_color,
  hash: one.thumbhash,
  size: one.dimensions,
  urls: one.urls,
});

export const nameOf = (one) => one.name ?? `Image ${one.id}`;

export class Grid {
  #mounted = new Map(); // row -> its node
  #drawing = false;
  #leaving = new Set(); // IDs of pictures that wait for their deletion
  #bare = new Map(); // link of a picture that is still loading -> the ThumbHash to be shown in it
  #anchor = 0; // where a selection with Shift begins

  /**
   * `sizes` is {variant: longer side}, `cut` names the variants that show a part only. `open(place)` shows one,
   * `remove()` deletes those that are selected, `near()` is called while the end is near, `chosen()` after a selection,
   * `missing(id)` when a picture did not load.
   */
  constructor(node, { sizes, cut, open, remove, near, chosen, missing }) {
    Object.assign(this, { node, sizes, cut: new Set(cut), open, remove, near, chosen, missing });
    Object.assign(this, { items: [], ratios: [], selected: new Set(), current: 0, rows: new Rows(node.clientWidth) });
    node.addEventListener('click', (event) => this.#clicked(event));
    node.addEventListener('keydown', (event) => this.#pressed(event));
    node.addEventListener('focusin', ({ target }) => this.#focused(target));
    node.addEventListener('error', ({ target }) => this.#lost(target), true);
    addEventListener('scroll', () => this.#soon(), { passive: true });
    new ResizeObserver(() => this.#resized()).observe(node);
    addEventListener('resize', () => this.#soon());
  }

  append(items) {
    for (const one of items) {
      this.items.push(one);
      this.ratios.push(ratioOf(one.size));
    }
    const last = this.rows.starts.length - 1;
    this.rows.extend(this.ratios);
    this.#rebuild([last]); // it may have grown
  }

  /** Take away pictures that are gone. */
  drop(ids) {
    const gone = new Set(ids);
    const place = this.items[this.current]?.id;
    this.items = this.items.filter(({ id }) => !gone.has(id));
    for (const id of gone) {
      this.selected.delete(id);
      this.#leaving.delete(id);
    }
    const now = this.items.findIndex(({ id }) => id === place);
    this.current = now >= 0 ? now : Math.min(this.current, Math.max(0, this.items.length - 1));
    this.#anew();
    this.chosen();
  }

  /** Show pictures as being deleted, or not any more. */
  leave(ids, leaving) {
    for (const id of ids) {
      if (leaving) this.#leaving.add(id);
      else this.#leaving.delete(id);
      this.selected.delete(id);
    }
    this.#mark();
    this.chosen();
  }

  select(place, chosen) {
    const { id } = this.items[place];
    if (chosen && !this.#leaving.has(id)) this.selected.add(id);
    else this.selected.delete(id);
  }

  selectAll(chosen) {
    this.selected.clear();
    if (chosen) for (let place = 0; place < this.items.length; place += 1) this.select(place, true);
    this.#mark();
    this.chosen();
  }

  replace(one) {
    const place = this.items.findIndex(({ id }) => id === one.id);
    if (place < 0) return;
    this.items[place] = one;
    this.#rebuild([this.rows.of(place)]);
  }

  placeOf(id) {
    return this.items.findIndex((one) => one.id === id);
  }

  /** Move the focus to a picture, and the page to it. */
  focus(place) {
    if (!this.items.length) return;
    this.current = Math.min(this.items.length - 1, Math.max(0, place));
    const row = this.rows.of(this.current), top = this.node.getBoundingClientRect().top + this.rows.tops[row];
    const low = top + this.rows.heights[row] - innerHeight + 8, high = top - this.#above() - 8;
    if (high < 0) scrollBy(0, high);
    else if (low > 0) scrollBy(0, low);
    this.draw();
    this.#link(this.current)?.focus({ preventScroll: true });
  }

  /** The height of what stays at the top of the page. */
  #above() {
    return document.getElementById('selection')?.getBoundingClientRect().height ?? 0;
  }

  #soon() {
    if (this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => {
      this.#drawing = false;
      this.draw();
    });
  }

  draw() {
    this.node.style.height = `${Math.max(0, this.rows.height)}px`;
    const top = -this.node.getBoundingClientRect().top, view = innerHeight;
    const [first, last] = this.rows.around(Math.max(0, top), Math.max(0, top + view), view, MOST);
    const held = this.node.contains(document.activeElement) ? this.rows.of(this.current) : -1;
    for (const row of this.#mounted.keys()) {
      if ((row < first || row > last) && row !== held) this.#unmount(row);
    }
    this.#fill(first, last, [this.rows.at(Math.max(0, top)), this.rows.at(Math.max(0, top + view))]);
    this.#tabStop();
    if (this.rows.height - top < 3 * view) this.near();
  }

  /** Build rows and colours: those in sight now, of the others what fits into the frame. */
  #fill(first, last, [top, bottom]) {
    const end = performance.now() + FRAME_MS, wanted = [];
    for (let row = first; row <= last; row += 1) if (!this.#mounted.has(row)) wanted.push(row);
    const away = (row) => Math.max(0, top - row, row - bottom);
    wanted.sort((one, other) => away(one) - away(other));
    for (const row of wanted) {
      if (away(row) && performance.now() > end) return this.#soon();
      this.#mount(row);
    }
    for (const [link, hash] of this.#bare) {
      if (performance.now() > end) return this.#soon();
      this.#bare.delete(link);
      link.prepend(...[placeholder(hash)].filter(Boolean));
    }
    return undefined;
  }

  #anew() {
    this.rows = new Rows(this.node.clientWidth);
    this.ratios = this.items.map(({ size }) => ratioOf(size));
    this.rows.extend(this.ratios);
    this.#rebuild([...this.#mounted.keys()]);
  }

  /** Build these rows again. The focus stays on its picture, whose node may be another one then. */
  #rebuild(rows) {
    const focused = this.node.contains(document.activeElement);
    for (const row of rows) this.#unmount(row);
    this.draw();
    if (focused && !this.node.contains(document.activeElement)) this.#link(this.current)?.focus({ preventScroll: true });
  }

  #resized() {
    if (this.node.clientWidth === this.rows.width) return;
    const row = this.rows.at(Math.max(0, -this.node.getBoundingClientRect().top));
    const seen = this.rows.starts[row] ?? 0, was = this.rows.tops[row] ?? 0;
    this.#anew();
    if (was > 0) scrollBy(0, (this.rows.tops[this.rows.of(seen)] ?? 0) - was); // the same pictures stay in sight
  }

  #mount(row) {
    const cells = this.rows.boxes(row, this.ratios).map(([place, left, width]) => this.#tile(place, left, width, row));
    const node = el('div', { role: 'row', class: 'row', 'aria-rowindex': row + 1 }, cells);
    node.style.transform = `translateY(${Math.round(this.rows.tops[row])}px)`;
    node.style.height = `${Math.round(this.rows.heights[row])}px`;
    let after = null; // the next row on the page: they are read in their order
    for (const [other, its] of this.#mounted) if (other > row && (after === null || other < after[0])) after = [other, its];
    this.node.insertBefore(node, after?.[1] ?? null);
    this.#mounted.set(row, node);
  }

  #unmount(row) {
    const node = this.#mounted.get(row);
    if (!node) return;
    this.#mounted.delete(row);
    for (const link of node.querySelectorAll('a')) {
      link.querySelector('img')?.removeAttribute('src'); // what is still loading is not wanted
      this.#uncolour(link);
    }
    node.remove();
  }

  #uncolour(link) {
    this.#bare.delete(link);
    const canvas = link.querySelector('canvas');
    if (canvas) giveBack(canvas);
  }

  /** A picture has loaded. Once it is seen nothing is behind it any more: it may be transparent. */
  #loaded(link, image, since) {
    const fades = performance.now() - since > AT_ONCE_MS;
    const seen = () => {
      this.#uncolour(link);
      link.style.backgroundColor = '';
    };
    link.classList.add(fades ? 'fades' : 'seen');
    if (fades) void Promise.allSettled(image.getAnimations().map(({ finished }) => finished)).then(seen);
    else seen();
  }

  #tile(place, left, width, row) {
    const one = this.items[place], height = Math.round(this.rows.heights[row]), name = nameOf(one);
    const source = this.#source(one, width, height), words = [name, ...(one.status === ENDED ? [] : [one.status])];
    const image = source && el('img', { src: source, alt: '', width, height, loading: 'lazy', decoding: 'async' });
    const link = el('a', { href: this.#largest(one) ?? `#${one.id}`, tabindex: -1, 'aria-label': words.join(', ') },
      image,
      one.status === ENDED ? null : el('span', { class: 'waits' }, state(one.status)),
      el('span', { class: 'title', 'aria-hidden': 'true' }, foreign(name)));
    link.style.backgroundColor = one.color ?? '';
    if (one.hash) this.#bare.set(link, one.hash);
    const since = performance.now();
    if (image) image.addEventListener('load', () => this.#loaded(link, image, since), { once: true });
    const box = el('input', { type: 'checkbox', tabindex: -1, 'aria-label': `Select ${name}` });
    const cell = el('div', { role: 'gridcell', class: 'tile', 'data-place': place }, link, box);
    cell.style.left = `${left}px`;
    cell.style.width = `${width}px`;
    this.#dress(cell, one);
    return cell;
  }

  /** The smallest whole variant that is sharp enough at this size. The first of `urls` is the largest. */
  #source(one, width, height) {
    const ready = Object.keys(one.urls).filter((name) => !this.cut.has(name));
    const names = ready.length ? ready : Object.keys(one.urls);
    if (!names.length) return null;
    const wanted = (Math.max(width, height) * Math.min(2, devicePixelRatio)) / SHARP;
    const small = names.findLast((name) => (this.sizes[name] ?? 0) >= wanted);
    return here(one.urls[small ?? names[0]]);
  }

  #largest(one) {
    const [first] = Object.values(one.urls);
    return first === undefined ? null : here(first);
  }

  #dress(cell, one) {
    const chosen = this.selected.has(one.id), leaving = this.#leaving.has(one.id);
    cell.setAttribute('aria-selected', String(chosen));
    cell.classList.toggle('leaving', leaving);
    cell.lastElementChild.checked = chosen;
    cell.lastElementChild.disabled = leaving;
  }

  #mark() {
    for (const node of this.#mounted.values()) {
      for (const cell of node.children) this.#dress(cell, this.items[Number(cell.dataset.place)]);
    }
  }

  #link(place) {
    return this.#mounted.get(this.rows.of(place))?.querySelector(`[data-place="${place}"] > a`);
  }

  /** One picture is reached by Tab; the others by the arrow keys. */
  #tabStop() {
    const shown = this.#link(this.current);
    const place = shown ? this.current : Number(this.#firstInSight()?.dataset.place ?? 0);
    for (const link of this.node.querySelectorAll('a[tabindex="0"]')) link.tabIndex = -1;
    const link = shown ?? this.#link(place);
    if (link) link.tabIndex = 0;
  }

  #firstInSight() {
    const row = this.#mounted.get(this.rows.at(Math.max(0, -this.node.getBoundingClientRect().top)));
    return row?.firstElementChild;
  }

  #focused(target) {
    const place = target.closest('.tile')?.dataset.place;
    if (place === undefined) return;
    this.current = Number(place);
    this.#tabStop();
  }

  #clicked(event) {
    const cell = event.target.closest('.tile');
    if (!cell) return;
    const place = Number(cell.dataset.place);
    if (event.target.matches('input')) {
      this.#choose(place, event.shiftKey);
    } else if (event.target.closest('a') && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      if (event.shiftKey || this.selected.size) this.#choose(place, event.shiftKey);
      else this.open(place);
    }
  }

  #choose(place, range) {
    const chosen = !this.selected.has(this.items[place].id);
    const from = range ? this.#anchor : place;
    for (let one = Math.min(from, place); one <= Math.max(from, place); one += 1) this.select(one, range || chosen);
    this.#anchor = place;
    this.#mark();
    this.chosen();
  }

  #pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.items.length) return;
    const moves = {
      ArrowRight: () => this.current + 1,
      ArrowLeft: () => this.current - 1,
      ArrowDown: () => this.rows.beside(this.current, this.ratios, 1),
      ArrowUp: () => this.rows.beside(this.current, this.ratios, -1),
      Home: () => 0,
      End: () => this.items.length - 1,
    };
    if (event.key in moves) {
      event.preventDefault();
      this.focus(moves[event.key]());
    } else if (event.key === ' ' && event.target.matches('a')) {
      event.preventDefault();
      this.#choose(this.current, event.shiftKey);
    } else if (event.key === 'Delete') {
      if (!this.selected.size) this.select(this.current, true);
      this.remove();
    } else if (event.key === 'Escape' && this.selected.size) {
      this.selectAll(false);
    }
  }

  /** A picture that does not load: its address may have ended, or it is gone. Its frame stays, with a word. */
  #lost(image) {
    if (!(image instanceof HTMLImageElement) || !image.hasAttribute('src')) return;
    const link = image.closest('a'), one = this.items[Number(link.parentElement.dataset.place)];
    image.remove();
    link.append(el('span', { class: 'waits' }, 'not loaded'));
    this.missing(one.id);
  }
}
