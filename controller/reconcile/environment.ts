import type { CiJob } from '../api/cijob.ts';
import { maskOf, type Mask } from './masking.ts';
import type { JobStore } from './ports.ts';

/** A Secret that a job's environment names is not there, has no such key, or holds what no environment can carry. */
export class UnusableSecret extends Error {
  override readonly name = 'UnusableSecret';
  readonly reason: 'SecretNotFound' | 'SecretInvalid';

  constructor(reason: UnusableSecret['reason'], message: string) {
    super(message);
    this.reason = reason;
  }
}

export function hasSecrets({ spec }: CiJob): boolean {
  return spec.env.some(({ valueFrom }) => valueFrom !== undefined);
}

/** The environment of one job's command. Values of Secrets are remembered only to be masked. */
export class Environment {
  readonly #store: Pick<JobStore, 'secret'>;
  /** Values of Secrets, as they were read; undefined before. */
  #secrets: Set<string> | undefined;

  constructor(store: Pick<JobStore, 'secret'>) {
    this.#store = store;
  }

  /** Reads it, Secrets included: for the request that launches the command, and nothing else. @throws UnusableSecret */
  async read({ metadata, spec }: CiJob): Promise<Record<string, string>> {
    const namespace = metadata.namespace ?? 'default';
    const secrets = new Set(this.#secrets);
    const values = await Promise.all(
      spec.env.map(async ({ name, value, valueFrom }): Promise<[string, string]> => {
        if (!valueFrom) return [name, value ?? ''];
        const { name: secret, key } = valueFrom.secretKeyRef;
        const found = await this.#store.secret(namespace, secret, key);
        const what = `env ${name}: Secret ${secret}`;
        if (found === undefined) throw new UnusableSecret('SecretNotFound', `${what} has no key ${key}`);
        if (found.includes('\0'))
          throw new UnusableSecret('SecretInvalid', `${what}: ${key} holds a NUL byte`);
        secrets.add(found);
        return [name, found];
      }),
    );
    this.#secrets = secrets;
    return Object.fromEntries(values);
  }

  /** What to mask; undefined when its Secrets, which another process read at the launch, cannot be read any more. */
  async mask(job: CiJob): Promise<Mask | undefined> {
    if (!hasSecrets(job)) return [];
    try {
      if (!this.#secrets) await this.read(job);
    } catch {
      return undefined;
    }
    return maskOf(this.#secrets ?? []);
  }
}
