// The overview: kept fresh, and with uploads.

import { byId } from './dom.js';
import { announce, onAction } from './frame.js';
import { pause, soon } from './live.js';
import { signIn, takeCode } from './session.js';
import { again, allowUploads, clearEnded, startUploads } from './upload.js';

onAction({ pause, again: ({ dataset }) => again(dataset.upload), clear: clearEnded });

const upload = byId('upload');
if (upload) {
  allowUploads({ may_act: true, can_make_tokens: upload.dataset.tokens === 'ours' });
  startUploads({ announce, refresh: soon });
}

const code = takeCode();
let leaving = false;
if (code !== null) {
  // Who is signed in already only uses up the code; the reader of a public dashboard gets the operator's page by it.
  const entered = await signIn({ code }).then(() => true, () => false);
  leaving = entered && !upload;
  if (leaving) location.reload();
}
byId('live').hidden = leaving;
