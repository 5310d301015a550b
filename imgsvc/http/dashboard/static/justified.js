// The arithmetic of a justified grid: rows that fill the width, with every picture at its own ratio. No nodes here.

export const GAP = 6; // pixels
const NARROWEST = 0.5, WIDEST = 3; // ratios beyond these are shown cropped

/** Width / height of a picture, as far as the grid shows it. Unknown sizes are square. */
export const ratioOf = (size) =>
  (size && size.width > 0 && size.height > 0 ? Math.min(WIDEST, Math.max(NARROWEST, size.width / size.height)) : 1);

/** The height that rows should have: larger on larger screens, so that a screen shows some hundred pictures at most. */
export const rowHeight = (width) => Math.round(Math.min(320, Math.max(130, width / 6)));

export class Rows {
  #open = 0; // the first picture of the last row, which is made anew when more follow

  constructor(width, target = rowHeight(width)) {
    Object.assign(this, { width, target, starts: [], tops: [], heights: [], count: 0, height: 0 });
  }

  /** Lay out pictures from the last row on; `ratios` holds those of all pictures. */
  extend(ratios) {
    if (this.starts.length) this.#drop();
    let first = this.#open, sum = 0;
    for (let place = first; place < ratios.length; place += 1) {
      sum += ratios[place];
      const height = (this.width - GAP * (place - first)) / sum;
      if (height > this.target) continue;
      this.#close(first, height);
      first = place + 1;
      sum = 0;
    }
    this.#open = first;
    if (first < ratios.length) this.#close(first, this.target); // not stretched: there may be only one
    else this.#open = this.starts.at(-1) ?? 0;
    this.count = ratios.length;
  }

  #drop() {
    if (this.starts.at(-1) !== this.#open) return;
    this.starts.pop();
    this.height = this.tops.pop();
    this.heights.pop();
  }

  #close(first, height) {
    this.starts.push(first);
    this.tops.push(this.height);
    this.heights.push(height);
    this.height += height + GAP;
  }

  /** The row at a distance from the top in pixels, or the nearest one. */
  at(distance) {
    let low = 0, high = this.tops.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.tops[middle] <= distance) low = middle;
      else high = middle - 1;
    }
    return Math.max(0, low);
  }

  /** The row of a picture. */
  of(place) {
    let low = 0, high = this.starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.starts[middle] <= place) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  end(row) {
    return this.starts[row + 1] ?? this.count;
  }

  /** [place, left, width] of each picture of a row; whole pixels, so that no seam shows. */
  boxes(row, ratios) {
    const height = this.heights[row], end = this.end(row), boxes = [];
    let left = 0;
    for (let place = this.starts[row]; place < end; place += 1) {
      const right = left + ratios[place] * height;
      boxes.push([place, Math.round(left), Math.round(right) - Math.round(left)]);
      left = right + GAP;
    }
    return boxes;
  }

  /** The picture in the row above (-1) or below (1) that is nearest to the middle of this one. */
  beside(place, ratios, step) {
    const row = this.of(place), other = row + step;
    if (other < 0 || other >= this.starts.length) return place;
    const [, left, width] = this.boxes(row, ratios).find(([one]) => one === place);
    const middle = left + width / 2;
    const distance = ([, from, wide]) => Math.abs(from + wide / 2 - middle);
    return this.boxes(other, ratios).reduce((best, box) => (distance(box) < distance(best) ? box : best))[0];
  }

  /**
   * The rows to have on the page: those in sight, then by turns the next below and above, up to `margin` pixels away and
   * `most` pictures. Returns [first, last].
   */
  around(top, bottom, margin, most) {
    if (!this.starts.length) return [0, -1];
    let first = this.at(top), last = this.at(bottom);
    const pictures = () => this.end(last) - this.starts[first];
    const above = () => first > 0 && this.tops[first] > top - margin;
    const below = () => last < this.starts.length - 1 && this.tops[last] < bottom + margin;
    while (pictures() > most && last > first) last -= 1;
    while (above() || below()) {
      const was = [first, last];
      if (below()) last += 1;
      if (pictures() > most) return was;
      if (above()) first -= 1;
      if (pictures() > most) return [first + 1, last];
    }
    return [first, last];
  }
}
