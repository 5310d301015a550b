// A job's page: its retry.

import { pathOf, post } from './api.js';
import { byId, setText } from './dom.js';
import { announce, onAction } from './frame.js';

const SEEN_MS = 600; // so that the words are read before the page is fetched again

onAction({
  async retry(button) {
    if (button.getAttribute('aria-disabled') === 'true') return;
    button.setAttribute('aria-disabled', 'true');
    try {
      await post(`api/v1/operator/jobs/${pathOf(button.dataset.job)}/retry`);
      setText(byId('said'), 'The job is being retried.');
      setTimeout(() => location.reload(), SEEN_MS);
    } catch (refused) {
      button.removeAttribute('aria-disabled');
      setText(byId('said'), `Not retried: ${refused.message}`);
      announce(`Not retried: ${refused.message}`);
    }
  },
});
