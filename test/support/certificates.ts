import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { runOk } from './command.ts';

/** Paths of a key and its certificate, both PEM. */
export interface KeyPair {
  key: string;
  certificate: string;
}

const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];

/** Makes a certificate authority in a directory, valid for a day. */
export async function makeAuthority(dir: string): Promise<KeyPair> {
  const pair = { key: join(dir, 'ca.key'), certificate: join(dir, 'ca.crt') };
  const files = ['-keyout', pair.key, '-out', pair.certificate];
  await runOk('openssl', ['req', '-x509', ...newKey, ...files, '-days', '1', '-subj', '/CN=bench-ca']);
  return pair;
}

/**
 * Issues a certificate. To the API server the common name is the user and each organisation a group.
 *
 * @param name the files' name in `dir`
 * @param addresses DNS names or IP addresses, for a server
 */
export async function issueCertificate(
  authority: KeyPair,
  {
    dir,
    name,
    user,
    groups = [],
    addresses = [],
  }: { dir: string; name: string; user: string; groups?: readonly string[]; addresses?: readonly string[] },
): Promise<KeyPair> {
  const pair = { key: join(dir, `${name}.key`), certificate: join(dir, `${name}.crt`) };
  const request = join(dir, `${name}.csr`);
  const extensions = join(dir, `${name}.ext`);
  const escape = (value: string) => value.replaceAll(/[\\/+]/g, '\\$&');
  const subject = [`/CN=${escape(user)}`, ...groups.map((group) => `/O=${escape(group)}`)].join('');
  await runOk('openssl', ['req', '-new', ...newKey, '-keyout', pair.key, '-out', request, '-subj', subject]);
  const names = addresses.map((address) => (/^[\d.]+$/.test(address) ? `IP:${address}` : `DNS:${address}`));
  await writeFile(
    extensions,
    [
      'extendedKeyUsage=clientAuth,serverAuth',
      ...(names.length > 0 ? [`subjectAltName=${names.join(',')}`] : []),
    ].join('\n'),
  );
  const signer = ['-CA', authority.certificate, '-CAkey', authority.key, '-CAcreateserial', '-days', '1'];
  await runOk('openssl', [
    'x509',
    '-req',
    '-in',
    request,
    ...signer,
    '-extfile',
    extensions,
    '-out',
    pair.certificate,
  ]);
  return pair;
}
