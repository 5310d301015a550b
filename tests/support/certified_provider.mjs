// A certified OpenID Connect provider (the npm package oidc-provider) on loopback, with its own pages to sign in.
// Arguments: the port, and the client's redirect URI.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [port, redirect, folder] = process.argv.slice(2);
const found = createRequire(pathToFileURL(`${folder}/`)).resolve('oidc-provider');
const { default: Provider } = await import(pathToFileURL(found));
const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [{ client_id: 'imgsvc', client_secret: 's'.repeat(40), redirect_uris: [redirect] }],
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'] },
  findAccount: async (_, id) => ({
    accountId: id,
    claims: async () => ({ sub: id, name: `Ms ${id}`, email: `${id}@example.org`, email_verified: true }),
  }),
});
provider.listen(Number(port), '127.0.0.1', () => console.log('listens'));
