// The colours of a picture before it is there, from its ThumbHash.

import { thumbhashPixels } from '../../static/imgsvc.js';

const SIDE = 16; // pixels of the longer side: the browser enlarges it smoothly, and a grid draws dozens at once

/** A canvas with the picture of a hash; null without one, or if it is none. */
export function placeholder(hash) {
  if (!hash) return null;
  const canvas = document.createElement('canvas');
  canvas.setAttribute('aria-hidden', 'true');
  try {
    const { width, height, rgba } = thumbhashPixels(hash, SIDE);
    Object.assign(canvas, { width, height });
    canvas.getContext('2d').putImageData(new ImageData(rgba, width, height), 0, 0);
  } catch {
    return null;
  }
  return canvas;
}
