// Addresses of pictures: to load them here, and to copy.

import { own } from './components.js';

let published = ''; // what the service puts before the addresses that it hands out

export const publishedAt = (address) => {
  published = address;
};

/** An address of the service, for this page: its own origin, whatever name it is published under. */
export const here = (url) => own(published && url.startsWith(published) ? url.slice(published.length) : url);

/** The whole address, for everybody else. */
export const everywhere = (url) => (published ? url : own(url));

const HTML = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
const html = (text) => text.replace(/[&<>"']/g, (one) => HTML[one]);
const markdown = (text) => text.replace(/[\\[\]`*_<>]/g, '\\$&').replace(/\s+/g, ' ');
const described = (name) => (name ?? '').replace(/\.\w{1,5}$/, '');

/** What to paste, by its name: of one variant of an image of the operator's API. `cut` has variants that are crops. */
export function snippets(image, variant, cut) {
  const address = everywhere(image.urls[variant]), { width, height } = image.variants[variant];
  const alt = described(image.original_filename);
  const whole = image.ready.filter((name) => !cut.has(name)).reverse(); // the smallest first
  const set = whole.map((name) => `${everywhere(image.urls[name])} ${image.variants[name].width}w`);
  const plain = `src="${html(address)}" width="${width}" height="${height}" alt="${html(alt)}"`;
  return {
    Address: address,
    Markdown: `![${markdown(alt)}](${address})`,
    HTML: `<img ${plain}>`,
    ...(whole.length > 1 && !cut.has(variant)
      ? { srcset: `<img srcset="${html(set.join(', '))}" sizes="(max-width: ${width}px) 100vw, ${width}px" ${plain}>` } : {}),
  };
}
