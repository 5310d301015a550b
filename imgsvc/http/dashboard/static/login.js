// The sign-in page.

import { at } from './api.js';
import { byId, setText } from './dom.js';
import { whole } from './format.js';
import { signIn, takeCode } from './session.js';

const TOKEN_WRONG = 'That is not the operator token of this service.';
const CODE_USED = 'This link was used before or is older than 10 minutes. Get a new one, or use the token.';

async function attempt(proof, refusedWords) {
  setText(byId('said'), 'Signing in…');
  byId('enter').setAttribute('aria-disabled', 'true');
  try {
    await signIn(proof);
    if (location.pathname.endsWith('/login')) location.replace(at('dashboard'));
    else location.reload(); // the page that was asked for
  } catch (refused) {
    const later = refused.retryAfter ? ` Try again in ${whole(refused.retryAfter)}.` : '';
    setText(byId('said'), refused.status === 401 ? refusedWords : `${refused.message}${later}`);
    byId('enter').removeAttribute('aria-disabled');
    byId('token').focus();
  }
}

byId('form').addEventListener('submit', (event) => {
  event.preventDefault();
  const token = byId('token').value.trim();
  if (token && !byId('enter').hasAttribute('aria-disabled')) void attempt({ token }, TOKEN_WRONG);
});

// Enabled last: before this, Enter would make the browser submit the form itself, which the page's policy forbids.
for (const field of ['token', 'enter']) byId(field).disabled = false;

const code = takeCode();
if (code !== null) void attempt({ code }, CODE_USED);
