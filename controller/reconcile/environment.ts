import type { CiJob } from '../api/cijob.ts';
import { maskOf, type Mask } from './masking.ts';
import type { JobStore } from './ports.ts';

/** A Secret that a job's environment names is not there, or has no such key. */
export class MissingSecret extends Error {
  override readonly name = 'MissingSecret';
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

  /** Reads it, Secrets included: for the request that launches the command, and nothing else. @throws MissingSecret */
  async read({ metadata, spec }: CiJob): Promise<Record<string, string>> {
    const namespace = metadata.namespace ?? 'default';
    const secrets = new Set(this.#secrets);
    const values = await Promise.all(
      spec.env.map(async ({ name, value, valueFrom }): Promise<[string, string]> => {
        if (!valueFrom) return [name, value ?? ''];
        const { name: secret, key } = valueFrom.secretKeyRef;
        const found = await this.#store.secret(namespace, secret, key);
        if (found === undefined) throw new MissingSecret(`env ${name}: Secret ${secret} has no key ${key}`);
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
