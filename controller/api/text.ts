import * as z from 'zod';
import { atAdmission } from './stored.ts';

/*
 * Bounded strings, the bricks of both resources. Every pattern here is read twice, by JavaScript and by the API
 * server's RE2 (https://github.com/google/re2/wiki/Syntax): no look-around, no \u escapes.
 */

/**
 * A string of `min` to `max` characters. The API server counts code points, JavaScript UTF-16 units: an emoji is
 * one of the former, two of the latter.
 */
function bounded(max: number, min: number) {
  return z
    .string()
    .refine((value) => inRange(Array.from(value).length, min, max), {
      error: ({ input }) => (input === '' ? 'must not be empty' : `must be ${min} to ${max} characters long`),
      // A string that is far too long is not worth a look at what is in it.
      abort: true,
    })
    .meta({ minLength: min, maxLength: max });
}

/** Text of `min` to `max` characters that holds no NUL, which neither argv nor an environment can carry. */
export function text(max: number, min = 0) {
  return bounded(max, min).regex(/^[^\x00]*$/, 'must not contain a NUL character');
}

/** A public key as in `known_hosts` without the host: type, base64 and perhaps a comment. */
export const publicKey = bounded(2048, 1).regex(
  /^[a-z0-9@.-]+ [A-Za-z0-9+/]+=*( [^\x00-\x1f]*)?$/,
  'must be a public key such as "ssh-ed25519 AAAA…"',
);

function inRange(value: number, min: number, max: number): boolean {
  return value >= min && value <= max;
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
  .regex(
    /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/,
    'must be lower case letters, digits, "-" and "."',
  );

/** A key of a Secret's data. */
export const secretKey = z
  .string()
  .min(1)
  .max(253)
  .regex(/^[-._a-zA-Z0-9]+$/, 'must be letters, digits, "-", "_" and "."');

/** Says what is wrong with the elements of an absolute path; nothing when it is written in its one shortest way. */
function pathFault(path: string): string | undefined {
  const [, ...elements] = path.split('/');
  if (elements.some((element) => element === '.' || element === '..')) return dotsMessage;
  if (elements.includes('')) return slashesMessage;
  return undefined;
}

const dotsMessage = 'must not contain "." or ".." as an element';
const slashesMessage = 'must not end with "/" or contain "//"';

/** {@link absolutePath} in CEL; to be repeated wherever a path gets further rules. */
export const absolutePathRules = [
  { rule: "!self.matches('/[.][.]?(/|$)')", message: dotsMessage },
  { rule: "!self.contains('//') && !self.endsWith('/')", message: slashesMessage },
];

/**
 * An absolute path in its shortest form, so that equal directories are equal strings and a prefix is a parent.
 * No control characters, and no `:`, which separates paths in the guest contract.
 */
export const absolutePath = bounded(1024, 2)
  .regex(/^\/[^\x00-\x1f\x7f:]*$/, 'must be an absolute path, without control characters or ":"')
  .refine((path) => pathFault(path) === undefined, {
    error: ({ input }) => pathFault(input as string) ?? '',
  })
  .meta({ 'x-kubernetes-validations': absolutePathRules });

/** Whether a path is a directory or lies below it. Both are {@link absolutePath}s; the directory may be `/`. */
export function isInside(path: string, directory: string): boolean {
  const base = directory.endsWith('/') ? directory : `${directory}/`;
  return path === directory || path.startsWith(base);
}

const parentMessage = 'must not contain ".." as an element';

/** A glob for paths below a directory (hosts/globs.ts). It cannot name what lies outside. */
export const glob = bounded(256, 1)
  .regex(/^[^\x00/][^\x00]*$/, 'must be relative, without "/" at its start, and without a NUL character')
  .refine((value) => !value.split('/').includes('..'), parentMessage)
  .meta({
    'x-kubernetes-validations': [{ rule: "!self.matches('(^|/)[.][.](/|$)')", message: parentMessage }],
  });

const boundedSize = /^([1-9][0-9]{0,8}(MiB|MB)|[1-9][0-9]{0,5}(GiB|GB)|[1-9][0-9]{0,2}(TiB|TB))$/;
const sizeMessage = 'must be a size such as 512MiB or 4GiB, at most 999TiB';

/**
 * A size as Incus writes it: `4GiB`, `512MiB`
 * (https://linuxcontainers.org/incus/docs/main/reference/instance_units/). It is less than a thousand TiB: Incus counts
 * bytes in 64 bits, and fails to create an instance with a size that does not fit in.
 */
export const size = z
  .string()
  .max(16)
  .regex(/^[1-9][0-9]{0,8}[MGT]i?B$/, { error: sizeMessage, abort: true })
  .refine((value) => boundedSize.test(value), { error: sizeMessage, ...atAdmission })
  .meta({ pattern: boundedSize.source });

const labelKey = /^([a-z0-9][-.a-z0-9]{0,251}[/])?[A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?$/;
const labelKeyMessage = 'keys must be label keys such as "arch" or "example.org/arch"';

const labelValue = z
  .string()
  .max(63)
  .regex(/^([A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?)?$/, 'must be a label value such as "x86_64"');

/** `metadata.labels`. */
export const labels = z
  .record(z.string(), labelValue)
  .refine((map) => Object.keys(map).every((key) => labelKey.test(key)), labelKeyMessage);

/** `metadata.annotations`. */
export const annotations = z
  .record(z.string(), z.string())
  .refine((map) => Object.keys(map).every((key) => labelKey.test(key)), labelKeyMessage);

/** Labels to match, as in `metav1.LabelSelector.matchLabels`. All must be present with these values. */
export const matchLabels = z
  .record(
    // Checked below, on the whole: a schema for keys has no place in a CRD.
    z.string(),
    labelValue,
  )
  .refine((map) => Object.keys(map).length <= 16, 'must not have more than 16 labels')
  .refine((map) => Object.keys(map).every((key) => labelKey.test(key)), labelKeyMessage)
  .meta({
    maxProperties: 16,
    'x-kubernetes-validations': [
      {
        rule: `self.all(key, key.matches('${labelKey.source}'))`,
        message: labelKeyMessage,
      },
    ],
  });

const bytesPerUnit: Record<string, number> = {
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
};

/** So many bytes as a size, in whole MiB. */
export function sizeOf(bytes: number): string {
  return `${Math.floor(bytes / 2 ** 20)}MiB`;
}

/** The bytes of a {@link size}. */
export function bytesOf(value: string): number {
  const unit = /[A-Za-z]+$/.exec(value)?.[0] ?? '';
  return Number.parseInt(value, 10) * (bytesPerUnit[unit] ?? Number.NaN);
}
