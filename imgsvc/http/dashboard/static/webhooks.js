// Webhooks: what waits, and the operator's test, replay and switching on.

import { pathOf, post } from './api.js';
import { el, foreign } from './dom.js';
import { duration, number } from './format.js';
import { state, table } from './components.js';

const said = new Map(); // name -> what the last action on this page gave

export function webhooks({ webhooks: all, operator }) {
  const rows = all.map((one) => ({
    key: one.name,
    cells: [
      foreign(one.name),
      one.switched_off ? state('failed', 'switched off: it answered 410')
        : one.overflowed ? state('degraded', 'too many waited') : state('healthy', 'on'),
      number(one.waiting),
      one.oldest_waiting_seconds === null ? '–' : duration(one.oldest_waiting_seconds),
      operator.may_act ? actions(one) : '–',
    ],
  }));
  return [table('Webhooks', ['Name', 'State', 'Waiting', 'Longest wait', 'Actions'], rows, 'webhooks')];
}

function actions(one) {
  const button = (act, words) => el('button', {
    type: 'button', 'data-action': 'webhook', 'data-act': act, 'data-webhook': one.name,
    'aria-label': `${words}: webhook ${one.name}`,
  }, words);
  return el('div', { class: 'act' },
    button('test', 'Test'), ' ', button('replay', 'Send again'),
    one.switched_off ? [' ', button('enable', 'Switch on')] : null,
    said.has(one.name) ? el('span', { class: 'said' }, ' ', said.get(one.name)) : null);
}

const RESULTS = {
  test: ({ ok, status, reason, milliseconds }) =>
    `Test ${ok ? 'delivered' : 'not delivered'}: ${status ?? reason}, ${milliseconds} ms.`,
  replay: ({ replayed }) => `${number(replayed)} deliveries wait again.`,
  enable: () => 'Switched on.',
};

/** Do what was asked. `tell` announces a sentence, `show` redraws the section. */
export async function act({ act: kind, webhook }, tell, show) {
  said.set(webhook, 'Asking…');
  show();
  try {
    const result = await post(`api/v1/operator/webhooks/${pathOf(webhook)}/${kind}`, kind === 'replay' ? {} : undefined);
    said.set(webhook, RESULTS[kind](result));
  } catch (refused) {
    said.set(webhook, refused.message);
  }
  tell(`Webhook ${webhook}: ${said.get(webhook)}`);
  show();
}
