// Copying, which must also work over plain HTTP, where the clipboard API is not available.

import { setText } from './dom.js';

const SHOWN_MS = 2000;

export async function copy(button, announce) {
  const done = await (navigator.clipboard ? navigator.clipboard.writeText(button.dataset.copy).then(() => true, () => false) : false);
  const copied = done || byHand(button);
  announce(copied ? 'Copied.' : 'The browser did not let the page copy; select the address and copy it by hand.');
  setText(button, copied ? 'Copied' : 'Not copied');
  setTimeout(() => setText(button, 'Copy'), SHOWN_MS);
}

function byHand(button) {
  const field = document.createElement('textarea');
  field.value = button.dataset.copy;
  field.className = 'unseen';
  document.body.append(field);
  field.select();
  const copied = document.execCommand('copy');
  field.remove();
  button.focus({ preventScroll: true });
  return copied;
}
