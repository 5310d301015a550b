// Building nodes. Data from the server becomes text nodes and attributes, never markup.

const SVG = 'http://www.w3.org/2000/svg';
const OF_THE_PERSON = new Set(['open', 'style']); // opened by hand / set through the style object, as the policy wants

export const byId = (id) => document.getElementById(id);

/** A new element. Children are nodes or text; null and false are left out, and so are attributes that are null. */
export function el(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Untrusted text (names, buckets, reasons), with isolated text direction. */
export const foreign = (text, attributes = {}) => el('bdi', { dir: 'auto', ...attributes }, String(text));

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.getAttribute('data-key') : null);

/**
 * Make the children of `parent` equal to `children`, keeping every node that can stay: one with the same data-key, or
 * else the one at the same place. So focus, scroll positions and selections survive, and loaded pictures stay.
 */
export function update(parent, children) {
  const wanted = new Set(children.map(keyOf));
  const kept = new Map();
  for (const child of [...parent.childNodes]) {
    const key = keyOf(child);
    if (key === null) continue;
    if (wanted.has(key) && !kept.has(key)) kept.set(key, child);
    else child.remove();
  }
  let place = parent.firstChild;
  for (const fresh of children) {
    const key = keyOf(fresh);
    const old = key === null ? place : kept.get(key);
    kept.delete(key);
    if (!old || keyOf(old) !== key || old.nodeName !== fresh.nodeName) {
      parent.insertBefore(fresh, place);
    } else {
      if (old === place) place = place.nextSibling;
      else parent.insertBefore(old, place);
      patch(old, fresh);
    }
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

/** `data-keep` marks a node whose content a script of the page looks after. */
function patch(old, fresh) {
  if (old.nodeType === Node.ELEMENT_NODE && old.hasAttribute('data-keep')) return;
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !OF_THE_PERSON.has(name)) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value && !OF_THE_PERSON.has(name)) old.setAttribute(name, value);
  }
  if (old.style.cssText !== fresh.style.cssText) old.style.cssText = fresh.style.cssText;
  update(old, [...fresh.childNodes]);
}

/** Run `change`; a focused node that was moved keeps the focus, one that went leaves it to its section's heading. */
export function keepingFocus(change) {
  const active = document.activeElement;
  const heading = active?.closest('section')?.querySelector('h2');
  change();
  if (!active || active === document.body || document.activeElement === active) return;
  (active.isConnected ? active : heading)?.focus({ preventScroll: true });
}
