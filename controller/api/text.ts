import * as z from 'zod';

/*
 * Bounded strings, the bricks of both resources. Every pattern here is read twice, by JavaScript and by the API
 * server's RE2 (https://github.com/google/re2/wiki/Syntax): no look-around, no \u escapes.
 */

/** Text of at most `max` characters that holds no NUL, which neither argv nor an environment can carry. */
export function text(max: number, min = 0) {
  return z
    .string()
    .min(min)
    .max(max)
    .regex(/^[^\x00]*$/, 'must not contain a NUL character');
}

/** A DNS-1123 label: what Kubernetes allows as the name of most things. */
export const dnsLabel = z
  .string()
  .min(1)
  .max(63)
  .regex(/^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/, 'must be lower case letters, digits and "-"');

/** The name of a Kubernetes object, such as a Secret (DNS-1123 subdomain). */
export const objectName = z
  .string()
  .min(1)
  .max(253)
  .regex(/^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$/, 'must be lower case letters, digits, "-" and "."');

/** A key of a Secret's data. */
export const secretKey = z
  .string()
  .min(1)
  .max(253)
  .regex(/^[-._a-zA-Z0-9]+$/, 'must be letters, digits, "-", "_" and "."');

/** Whether a path has a `..` element. Refused everywhere: a reader should see where a path leads. */
export function climbs(path: string): boolean {
  return path.split('/').includes('..');
}

/** An absolute path without `..`, control characters or `:`, which separates paths in the guest contract. */
export const absolutePath = z
  .string()
  .min(2)
  .max(1024)
  .regex(/^\/[^\x00-\x1f\x7f:]*$/, 'must be absolute, without control characters or ":"')
  .refine((path) => !climbs(path), 'must not contain ".."')
  .meta({
    'x-kubernetes-validations': [
      { rule: "!self.contains('/../') && !self.endsWith('/..')", message: 'must not contain ".."' },
    ],
  });

/**
 * A size as Incus writes it: `4GiB`, `512MiB`
 * (https://linuxcontainers.org/incus/docs/main/reference/instance_units/).
 */
export const size = z
  .string()
  .max(16)
  .regex(/^[1-9][0-9]{0,8}(MiB|GiB|TiB|MB|GB|TB)$/, 'must be a size such as 512MiB or 4GiB');

/** Labels to match, as in `metav1.LabelSelector.matchLabels`. All must be present with these values. */
export const matchLabels = z
  .record(
    z
      .string()
      .min(1)
      .max(317)
      .regex(/^([a-z0-9]([-.a-z0-9]*[a-z0-9])?\/)?[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?$/),
    z
      .string()
      .max(63)
      .regex(/^([A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?)?$/),
  )
  .meta({ maxProperties: 16 });

const bytesPerUnit: Record<string, number> = {
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
};

/** The bytes of a {@link size}. */
export function bytesOf(value: string): number {
  const unit = /[A-Za-z]+$/.exec(value)?.[0] ?? '';
  return Number.parseInt(value, 10) * (bytesPerUnit[unit] ?? Number.NaN);
}
