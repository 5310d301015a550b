// Choosing the focal point of a picture: by a click, or by the arrow keys and Enter.

import { el } from './dom.js';

const STEP = 0.02; // of a side, for each arrow key
const DIGITS = 4;
const MOVES = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };
const inside = (value) => Number(Math.min(1, Math.max(0, value)).toFixed(DIGITS));

export class FocalPoint {
  #point = null; // where the cross is, while it is chosen
  #saved = null;

  constructor(stage, save, tell) {
    Object.assign(this, { stage, save, tell, choosing: false });
    stage.addEventListener('click', (event) => this.#clicked(event));
  }

  begin(point) {
    this.choosing = true;
    this.#point = point ?? { x: 0.5, y: 0.5 };
    this.stage.classList.add('choosing');
    this.#show();
    this.tell('Click the most important place of the picture, or move the cross with the arrow keys and press Enter. Escape changes nothing.');
  }

  end() {
    this.choosing = false;
    this.stage.classList.remove('choosing');
    this.mark(this.#saved);
  }

  /** Show the saved point. */
  mark(point) {
    this.#saved = point;
    this.#show();
  }

  #show() {
    const frame = this.stage.querySelector('.frame-of'), point = this.choosing ? this.#point : this.#saved;
    if (!frame) return;
    let cross = frame.querySelector('.cross');
    if (!point) return cross?.remove();
    if (!cross) frame.append((cross = el('span', { class: 'cross', 'aria-hidden': 'true' })));
    cross.style.left = `${100 * point.x}%`;
    cross.style.top = `${100 * point.y}%`;
  }

  #clicked({ target, clientX, clientY }) {
    if (!this.choosing || !target.closest('.frame-of')) return;
    const box = this.stage.querySelector('.frame-of img').getBoundingClientRect();
    void this.#take({ x: inside((clientX - box.left) / box.width), y: inside((clientY - box.top) / box.height) });
  }

  #take(point) {
    this.end();
    return this.save(point);
  }

  /** Whether a key was for the cross. */
  pressed({ key }) {
    if (!this.choosing) return false;
    if (key === 'Enter') void this.#take(this.#point);
    else if (Object.hasOwn(MOVES, key)) {
      this.#point = { x: inside(this.#point.x + MOVES[key][0]), y: inside(this.#point.y + MOVES[key][1]) };
      this.#show();
    } else return false;
    return true;
  }
}
