// The page of pictures: its first ones came with the page; the others are asked for as they come near.

import { publishedAt } from './addresses.js';
import { ask, pathOf } from './api.js';
import { copy } from './clipboard.js';
import { Deletions } from './deletion.js';
import { byId, setText } from './dom.js';
import { count, setServerTime } from './format.js';
import { announce, onAction } from './frame.js';
import { Grid, kept, nameOf } from './grid.js';
import { Lightbox } from './lightbox.js';

const PAGE = 200; // images in one request

const { images, next, filters, sizes, cut, public_url: published, now } = JSON.parse(byId('pictures').dataset.page);
let cursor = next;
let loading = null; // the request for the next page, while there is one
const asked = new Set(); // IDs of pictures that did not load once

publishedAt(published);
setServerTime(now);

/** Announce to screen readers, and with `shown` to everybody. What is behind an open dialog is not read. */
function tell(words, shown = false) {
  const open = byId('lightbox').open;
  announce(words, open ? 'shown-announcements' : undefined);
  setText(byId(open ? 'shown-problem' : 'problem'), shown ? words : '');
}

const more = () => (loading ??= nextPage().finally(() => { loading = null; }));

/** A page of rare images may be short, or empty, and have another behind it. */
async function nextPage() {
  let found = 0;
  while (cursor !== null && found === 0) {
    setText(byId('end'), 'Loading…');
    try {
      const query = new URLSearchParams({ ...filters, limit: PAGE, after: cursor });
      const page = await ask(`api/v1/operator/images?${query}`);
      cursor = page.next;
      found = page.images.length;
      if (found) grid.append(page.images.map(kept));
    } catch (refused) {
      setText(byId('end'), refused.status === 401 ? 'The session has ended: sign in again.' : `More could not be loaded: ${refused.message}`);
      byId('again').hidden = false;
      return;
    }
  }
  ended();
}

function ended() {
  setText(byId('end'), cursor !== null ? '' : grid.items.length ? `That is all: ${count(grid.items.length, 'picture')}.` : 'No picture matches.');
}

function chosen() {
  const { size } = grid.selected;
  byId('selection').hidden = size === 0;
  setText(byId('selected'), `${count(size, 'picture')} selected`);
}

async function missing(id) {
  if (asked.has(id)) return;
  asked.add(id); // once: its address may have ended since the list came
  const shown = await ask(`api/v1/operator/images/${pathOf(id)}`).catch(() => null);
  if (shown) grid.replace(kept(shown));
}

const remove = (ids, name) => deletions.begin(ids, name);

function removeSelected() {
  const ids = [...grid.selected];
  if (ids.length) remove(ids, nameOf(grid.items[grid.placeOf(ids[0])]));
}

byId('first').remove();
byId('grid').hidden = false;
const grid = new Grid(byId('grid'), {
  sizes, cut, chosen, missing,
  open: (place) => lightbox.open(grid.items[place].id),
  remove: removeSelected,
  near: () => { if (cursor !== null && byId('again').hidden) void more(); },
});
const deletions = new Deletions(byId('deletions'), {
  tell,
  leave: (ids, leaving) => grid.leave(ids, leaving),
  gone(ids) {
    grid.drop(ids);
    ended();
  },
});
const lightbox = new Lightbox(grid, { cut, more, remove, tell });

onAction({
  copy: (button) => copy(button, tell),
  undo: ({ dataset }) => deletions.undo(Number(dataset.number)),
  'delete-selected': removeSelected,
  'select-none': () => grid.selectAll(false),
  'select-all': () => grid.selectAll(true),
  again(button) {
    button.hidden = true;
    void more();
  },
  ...lightbox.actions,
});

document.addEventListener('change', ({ target }) => {
  if (target.id === 'variant') lightbox.choose(target.value);
});
byId('filters').addEventListener('submit', ({ target }) => {
  for (const field of target.elements) field.disabled = field.name !== '' && field.value === ''; // a short address
});
addEventListener('pageshow', () => { // the browser went back to this page: its fields are as they were left
  for (const field of byId('filters').elements) field.disabled = false;
});

grid.append(images.map(kept));
ended();
lightbox.follow();
