import { describe, expect, test } from 'vitest';
import { type EnvVar } from '../../../controller/api/cijob.ts';
import type { CiJob } from '../../../controller/api/cijob.ts';
import { Environment, UnusableEnvironment } from '../../../controller/reconcile/environment.ts';

const fromSecret = (name: string, key: string, secret = 'store'): EnvVar => ({
  name,
  valueFrom: { secretKeyRef: { name: secret, key } },
});

/** Reads the environment of a job from Secrets that hold these keys. */
function read(env: EnvVar[], keys: Record<string, Buffer>, ownNamespace?: string) {
  const store = { secret: (_namespace: string, _name: string, key: string) => Promise.resolve(keys[key]) };
  const job = { metadata: { name: 'job', namespace: 'ci' }, spec: { env } } as CiJob;
  return new Environment(store, ownNamespace).read(job);
}

async function refusal(env: EnvVar[], keys: Record<string, Buffer>): Promise<UnusableEnvironment> {
  const error: unknown = await read(env, keys).catch((reason: unknown) => reason);
  if (!(error instanceof UnusableEnvironment)) throw new Error('it was not refused');
  return error;
}

describe('the environment of a job', () => {
  test('has the bytes of a Secret, whether or not they are text', async () => {
    const bytes = Buffer.from([0xff, 0xfe, 0xc3, 0x28, 0x0a]);
    const variables = await read([fromSecret('TOKEN', 'raw'), { name: 'PLAIN', value: 'é' }], { raw: bytes });
    expect(variables).toEqual(
      new Map([
        ['TOKEN', bytes],
        ['PLAIN', Buffer.from('é')],
      ]),
    );
  });

  test('is refused where a Secret or a key is missing, by both names', async () => {
    const { reason, message } = await refusal([fromSecret('TOKEN', 'gone')], {});
    expect(reason).toBe('SecretNotFound');
    expect(message).toBe('env TOKEN: Secret store has no key gone');
  });

  test('has no Secret of the namespace that the controller runs in: the SSH keys of hosts are there', async () => {
    const error: unknown = await read(
      [fromSecret('KEY', 'id', 'ssh-keys')],
      { id: Buffer.from('key') },
      'ci',
    ).catch((reason: unknown) => reason);
    expect(error).toMatchObject({
      reason: 'SecretNotAllowed',
      message: expect.stringContaining("namespace ci, which is the controller's own") as string,
    });
    const plain = [{ name: 'PLAIN', value: 'a' }];
    expect((await read(plain, {}, 'ci')).get('PLAIN')).toEqual(Buffer.from('a'));
    expect((await read([fromSecret('KEY', 'id')], { id: Buffer.from('key') }, 'other')).size).toBe(1);
  });

  test.each([
    ['a NUL byte', Buffer.from('a\0b'), 'NUL'],
    ['a byte more than Linux takes', Buffer.alloc(131_072 - 'TOKEN='.length, 'x'), '131066 bytes'],
  ])('is refused where a Secret holds %s, by the names of Secret and key', async (_what, value, why) => {
    const { reason, message } = await refusal([fromSecret('TOKEN', 'blob')], { blob: value });
    expect(reason).toBe('SecretInvalid');
    expect(message).toMatch(/^env TOKEN: key blob of Secret store /);
    expect(message).toContain(why);
  });

  test('takes the longest value that Linux takes', async () => {
    const blob = Buffer.alloc(131_072 - 'TOKEN='.length - 1, 'x');
    expect((await read([fromSecret('TOKEN', 'blob')], { blob })).get('TOKEN')).toEqual(blob);
  });

  test('is refused where no program could be started with all of it, and says which are the largest', async () => {
    const env = Array.from({ length: 17 }, (_, index) => fromSecret(`V${index}`, `k${index}`));
    const keys = Object.fromEntries(env.map((_, index) => [`k${index}`, Buffer.alloc(114_000 + index, 'x')]));
    const { reason, message } = await refusal(env, keys);
    expect(reason).toBe('EnvironmentTooLarge');
    expect(message).toContain('env V16: key k16 of Secret store: 114029 bytes; env V15');
    expect((await read(env.slice(1), keys)).size).toBe(16);
  });

  test('is refused for its plain values as well', async () => {
    const value = '😀'.repeat(31_000);
    const env = Array.from({ length: 15 }, (_, index): EnvVar => ({ name: `V${index + 10}`, value }));
    expect((await refusal(env, {})).message).toContain('the largest are env V10: 124013 bytes; env V11');
  });
});
