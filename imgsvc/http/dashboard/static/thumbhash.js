// The colours of a picture before it is there, from its ThumbHash.

import { thumbhashPixels } from '../../static/imgsvc.js';

const SIDE = 16; // pixels, square: one size for all lets a canvas be used again; the page stretches it to its picture
const free = []; // canvases without a picture

/**
 * A canvas with the colours of a hash; null without one, or if it is none. Give one back that is not shown any more:
 * the browser ends all canvases that became garbage in a single pause, 30 ms for those of two hundred rows.
 */
export function placeholder(hash) {
  if (!hash) return null;
  let pixels;
  try {
    pixels = thumbhashPixels(hash, SIDE, true).rgba;
  } catch {
    return null;
  }
  const canvas = free.pop() ?? blank();
  canvas.getContext('2d').putImageData(new ImageData(pixels, SIDE, SIDE), 0, 0);
  return canvas;
}

export function giveBack(canvas) {
  canvas.remove();
  free.push(canvas);
}

function blank() {
  const canvas = document.createElement('canvas');
  canvas.setAttribute('aria-hidden', 'true');
  return Object.assign(canvas, { width: SIDE, height: SIDE });
}
