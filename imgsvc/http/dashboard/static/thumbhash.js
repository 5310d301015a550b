// Draws a ThumbHash (https://evanw.github.io/thumbhash/): some 25 bytes that hold the low frequencies of a picture.

const SIDE = 16; // pixels of the longer side: the browser enlarges it smoothly

/** The pixels of a hash in base64: {width, height, data} with RGBA. Null if it is not a hash. */
export function decoded(hash) {
  const bytes = bytesOf(hash);
  if (bytes === null || bytes.length < 5) return null;
  const first = bytes[0] | (bytes[1] << 8) | (bytes[2] << 16);
  const second = bytes[3] | (bytes[4] << 8);
  const alpha = first >> 23 === 1, landscape = second >> 15 === 1;
  if (alpha && bytes.length < 6) return null;
  const most = alpha ? 5 : 7, fewer = second & 7;
  const [across, down] = landscape ? [most, fewer] : [fewer, most];
  const read = coefficients(bytes, alpha ? 6 : 5);
  const channels = [
    read((first & 63) / 63, Math.max(3, across), Math.max(3, down), ((first >> 18) & 31) / 31),
    read(((first >> 6) & 63) / 31.5 - 1, 3, 3, (((second >> 3) & 63) / 63) * 1.25),
    read(((first >> 12) & 63) / 31.5 - 1, 3, 3, (((second >> 9) & 63) / 63) * 1.25),
  ];
  if (alpha) channels.push(read((bytes[5] & 15) / 15, 5, 5, (bytes[5] >> 4) / 15));
  const ratio = Math.max(1, across) / Math.max(1, down);
  return drawn(channels, Math.round(ratio > 1 ? SIDE : SIDE * ratio), Math.round(ratio > 1 ? SIDE / ratio : SIDE));
}

function bytesOf(hash) {
  try {
    return Uint8Array.from(atob(hash), (one) => one.charCodeAt(0));
  } catch {
    return null;
  }
}

/** A reader of the channels in their order: each has its mean and, in half bytes, the frequencies of a triangle. */
function coefficients(bytes, from) {
  let place = 0;
  return (mean, across, down, scale) => {
    const terms = [{ x: 0, y: 0, weight: mean }];
    for (let y = 0; y < down; y += 1) {
      for (let x = y === 0 ? 1 : 0; x * down < across * (down - y); x += 1) {
        const half = (bytes[from + (place >> 1)] ?? 0) >> ((place & 1) * 4);
        terms.push({ x, y, weight: 2 * ((half & 15) / 7.5 - 1) * scale });
        place += 1;
      }
    }
    return terms;
  };
}

function drawn(channels, width, height) {
  const across = waves(width), down = waves(height);
  const data = new Uint8ClampedArray(width * height * 4);
  for (let y = 0, at = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1, at += 4) {
      const [light, yellow, red, opaque] = channels.map((terms) =>
        terms.reduce((sum, term) => sum + term.weight * across[term.x][x] * down[term.y][y], 0));
      const blue = light - (2 / 3) * yellow;
      const strong = (3 * light - blue + red) / 2;
      data[at] = 255 * strong;
      data[at + 1] = 255 * (strong - red);
      data[at + 2] = 255 * blue;
      data[at + 3] = 255 * (opaque ?? 1);
    }
  }
  return { width, height, data };
}

const waves = (length) => Array.from({ length: 8 }, (_, frequency) =>
  Array.from({ length }, (_, place) => Math.cos((Math.PI / length) * (place + 0.5) * frequency)));

/** A canvas with the picture of a hash, or null. */
export function placeholder(hash) {
  const found = hash ? decoded(hash) : null;
  if (found === null) return null;
  const canvas = document.createElement('canvas');
  canvas.width = found.width;
  canvas.height = found.height;
  canvas.setAttribute('aria-hidden', 'true');
  canvas.getContext('2d').putImageData(new ImageData(found.data, found.width, found.height), 0, 0);
  return canvas;
}
