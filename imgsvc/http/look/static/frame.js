// On every page: signing out, and copying. Pages are complete without it.

import { at } from './api.js';
import { copy } from './clipboard.js';
import { byId, setText } from './dom.js';
import { signOut } from './session.js';

const SILENCE_MS = 50;

/** Announce to screen readers. A short pause without text makes them read the same words a second time. */
export function announce(words, id = 'announcements') {
  const place = byId(id);
  setText(place, '');
  setTimeout(() => setText(place, words), SILENCE_MS);
}

const ACTIONS = {
  copy: (button) => copy(button, announce),
  'sign-out': () => signOut().finally(() => location.replace(at('dashboard/login'))),
};

/** Let a page handle `data-action` of its buttons too: {name: (button) => …}. */
export const onAction = (more) => Object.assign(ACTIONS, more);

document.addEventListener('click', ({ target }) => {
  const button = target.closest?.('button[data-action]');
  if (button && ACTIONS[button.dataset.action]) void ACTIONS[button.dataset.action](button);
});
