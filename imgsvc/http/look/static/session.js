// Signing in with the one-use code of a link, or with the operator's token.

import { post } from './api.js';

const CODE = /^#code=([\w.-]+)$/;

/** Take the code out of the address and the history; null if there is none. */
export function takeCode() {
  const code = CODE.exec(location.hash)?.[1] ?? null;
  if (location.hash.startsWith('#code=')) history.replaceState(null, '', location.pathname + location.search);
  return code;
}

/** `proof` is {code} or {token}. Raises Refused. */
export const signIn = (proof) => post('api/v1/operator/login', proof);

export const signOut = () => post('api/v1/operator/logout');
