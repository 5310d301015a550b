// Deleting with ten seconds to think: the page waits before it asks. What was asked for is final.

import { post } from './api.js';
import { el, foreign, update } from './dom.js';
import { count } from './format.js';

export const WAIT_SECONDS = 10;
const AT_ONCE = 100; // IDs in one request

export class Deletions {
  #waiting = new Map(); // number -> {ids, words, left, timer}
  #next = 0;

  /** `node` shows what waits. `leave(ids, leaving)`, `gone(ids)` and `tell(words)` are called as it goes. */
  constructor(node, { leave, gone, tell }) {
    Object.assign(this, { node, leave, gone, tell });
  }

  /** `name` is that of the only picture. */
  begin(ids, name) {
    if (!ids.length) return;
    const number = (this.#next += 1), what = ids.length === 1 ? [foreign(name)] : [count(ids.length, 'picture')];
    const timer = setInterval(() => this.#tick(number), 1000);
    this.#waiting.set(number, { ids, what, left: WAIT_SECONDS, timer });
    this.leave(ids, true);
    this.#show();
    this.tell(`${ids.length === 1 ? name : count(ids.length, 'picture')}: deleted in ${WAIT_SECONDS} seconds, unless you undo it.`);
  }

  undo(number) {
    const one = this.#waiting.get(number);
    if (!one) return;
    this.#over(number);
    this.leave(one.ids, false);
    this.tell('Nothing was deleted.');
  }

  #tick(number) {
    const one = this.#waiting.get(number);
    one.left -= 1;
    if (one.left > 0) this.#show();
    else void this.#ask(number, one);
  }

  #over(number) {
    clearInterval(this.#waiting.get(number).timer);
    this.#waiting.delete(number);
    this.#show();
  }

  async #ask(number, { ids }) {
    this.#over(number);
    const gone = [], problems = new Map();
    for (let from = 0; from < ids.length; from += AT_ONCE) {
      const some = ids.slice(from, from + AT_ONCE);
      try {
        const { images } = await post('api/v1/operator/images/delete', { image_ids: some });
        for (const { image_id: id, deleted, code } of images) {
          if (deleted || code === 'image_not_found') gone.push(id);
          else problems.set(id, code);
        }
      } catch (refused) {
        for (const id of some) problems.set(id, refused.message);
      }
    }
    this.gone(gone);
    this.leave([...problems.keys()], false);
    const why = [...new Set(problems.values())].join('; ');
    this.tell(problems.size ? `${count(problems.size, 'picture')} could not be deleted: ${why}.` : `${count(gone.length, 'picture')} deleted.`, problems.size > 0);
  }

  #show() {
    update(this.node, [...this.#waiting].map(([number, { what, left }]) => el('li', { 'data-key': String(number) },
      el('span', {}, 'Deleting ', what, ` in ${left} s. Leaving this page keeps what is here.`),
      el('button', { type: 'button', 'data-action': 'undo', 'data-number': number }, 'Undo'))));
  }
}
