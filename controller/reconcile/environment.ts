import type { CiJob, EnvVar } from '../api/cijob.ts';
import type { Variables } from '../incus/environment-file.ts';
import { maskOf, type Mask } from './masking.ts';
import type { JobStore } from './ports.ts';

/** Linux starts no program with a longer string in its environment: name, "=", value and NUL (MAX_ARG_STRLEN). */
const mostBytesOfOne = 128 * 1024;
/**
 * Nor with more of everything than a quarter of the stack's limit, which is 8 MiB by default: environment, arguments,
 * and a pointer for each. The rest of that quarter is for the command, the variables that every job has, and the
 * arguments of what the command starts.
 */
const mostBytesOfAll = 2 * 1024 * 1024 - 256 * 1024;
const bytesOfPointer = 8;

/** The environment that a job asks for cannot be had: the job is at fault, or its Secrets are. */
export class UnusableEnvironment extends Error {
  override readonly name = 'UnusableEnvironment';
  readonly reason: 'SecretNotFound' | 'SecretInvalid' | 'SecretNotAllowed' | 'EnvironmentTooLarge';

  constructor(reason: UnusableEnvironment['reason'], message: string) {
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
  readonly #ownNamespace: string | undefined;
  /** Values of Secrets, as they were read; undefined before. */
  #secrets: readonly Buffer[] | undefined;

  /** @param ownNamespace the namespace that the controller runs in; undefined where it runs in none. */
  constructor(store: Pick<JobStore, 'secret'>, ownNamespace: string | undefined) {
    this.#store = store;
    this.#ownNamespace = ownNamespace;
  }

  /** Reads it, Secrets included: for the file that a launch takes it from, and nothing else. @throws UnusableEnvironment */
  async read({ metadata, spec }: CiJob): Promise<Variables> {
    const namespace = metadata.namespace ?? 'default';
    const secrets: Buffer[] = [];
    const read = async (variable: EnvVar): Promise<[string, Buffer]> => {
      const { name, value = '', valueFrom } = variable;
      if (!valueFrom) return [name, Buffer.from(value)];
      const { name: secret, key } = valueFrom.secretKeyRef;
      // The controller may read these for itself: the SSH keys of all hosts are among them.
      if (namespace === this.#ownNamespace) {
        throw new UnusableEnvironment(
          'SecretNotAllowed',
          `env ${name}: no job gets a Secret of namespace ${namespace}, which is the controller's own: create the CiJob and its Secret in another namespace`,
        );
      }
      const found = await this.#store.secret(namespace, secret, key);
      if (found === undefined)
        throw new UnusableEnvironment('SecretNotFound', `env ${name}: Secret ${secret} has no key ${key}`);
      refuseUnfit(variable, found);
      secrets.push(found);
      return [name, found];
    };
    const variables = new Map(await Promise.all(spec.env.map(read)));
    refuseTooMuch(spec.env, variables);
    this.#secrets = [...(this.#secrets ?? []), ...secrets].filter(isFirst);
    return variables;
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

/** @throws UnusableEnvironment where the value of a Secret is one that no variable can have. */
function refuseUnfit(variable: EnvVar, value: Buffer): void {
  const invalid = (why: string) => new UnusableEnvironment('SecretInvalid', `${whereOf(variable)} ${why}`);
  if (value.includes(0)) throw invalid('holds a NUL byte, which no environment variable can');
  const most = mostBytesOfOne - variable.name.length - 2;
  if (value.length > most) {
    throw invalid(
      `holds ${value.length} bytes; an environment variable of this name can hold ${most} on Linux. Mount larger data as a file`,
    );
  }
}

/** @throws UnusableEnvironment where no program could be started with all of it. */
function refuseTooMuch(env: readonly EnvVar[], variables: Variables): void {
  const sizeOf = ({ name }: EnvVar) => name.length + 2 + (variables.get(name)?.length ?? 0) + bytesOfPointer;
  const size = env.reduce((sum, variable) => sum + sizeOf(variable), 0);
  if (size <= mostBytesOfAll) return;
  const largest = env.toSorted((a, b) => sizeOf(b) - sizeOf(a)).slice(0, 3);
  const named = largest.map((variable) => `${whereOf(variable)}: ${sizeOf(variable)} bytes`).join('; ');
  throw new UnusableEnvironment(
    'EnvironmentTooLarge',
    `the variables of the job take ${size} bytes, and Linux starts no program with more than ${mostBytesOfAll} beside its command; the largest are ${named}`,
  );
}

function whereOf({ name, valueFrom }: EnvVar): string {
  if (!valueFrom) return `env ${name}`;
  return `env ${name}: key ${valueFrom.secretKeyRef.key} of Secret ${valueFrom.secretKeyRef.name}`;
}

function isFirst(value: Buffer, index: number, all: readonly Buffer[]): boolean {
  return all.findIndex((other) => other.equals(value)) === index;
}
