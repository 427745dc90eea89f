import { logTailBytes } from '../api/cijob-status.ts';
import type { GuestFile } from '../incus/client.ts';
import type { ArtifactNote, CommandOutcome } from '../incus/outcome.ts';
import { truncationMark } from './verdict.ts';

/*
 * Values of Secrets are masked in whatever leaves the guest for the status, Events and our log. This catches what a job
 * prints by mistake. A job that means to give a value away can: it may print it in any other form.
 */

/** Values of fewer bytes than this are not masked: words of the text would be. */
const shortest = 4;
/** The most texts to look for: a Secret with more lines than this is masked by its longest. */
const mostTexts = 1000;
const stars = '***';
const leftOut =
  'what the guest said is left out, as the Secrets of the job cannot be read to mask them in it';

/** What to mask: values of Secrets and their lines, longest first. */
export type Mask = readonly Buffer[];

/** The mask for values of Secrets. Their lines are masked each: tools print and indent them one by one. */
export function maskOf(values: Iterable<Buffer>): Mask {
  // Latin-1 has a character for each byte. Bytes that are no UTF-8 show as they are, or as U+FFFD.
  const shown = [...values].flatMap((value) => [value, Buffer.from(value.toString('utf8'))]);
  const texts = shown
    .map((bytes) => bytes.toString('latin1'))
    .flatMap((text) => [text, ...text.split('\n')])
    .map((text) => text.replace(/^[ \t-\r]+/, '').replace(/[ \t-\r]+$/, ''));
  return [...new Set(texts)]
    .filter((text) => text.length >= shortest)
    .map((text) => Buffer.from(text, 'latin1'))
    .sort((a, b) => b.length - a.length)
    .slice(0, mostTexts);
}

/** Bytes of a log's end to read, so that a value which their beginning cuts in two is seen whole. */
export function tailBytes(mask: Mask): number {
  return logTailBytes + Math.max(0, (mask[0]?.length ?? 0) - 1);
}

/**
 * An outcome with the values masked. Without a mask, because the values are not known, what the guest said is left out.
 * What became of the job stays what it was: of a result, only the texts for people are changed.
 */
export function masked(outcome: CommandOutcome, mask: Mask | undefined): CommandOutcome {
  if ('message' in outcome)
    return mask ? { ...outcome, message: hideInText(outcome.message, mask) } : outcome;
  if (outcome.kind !== 'collected') return outcome;
  const { result, log, artifacts } = outcome.collected;
  const shown = {
    result: maskedResult(result, mask),
    log: maskedLog(log, mask),
    artifacts: artifacts && { ...artifacts, notes: artifacts.notes.map((note) => maskedNote(note, mask)) },
  };
  return { ...outcome, collected: { ...outcome.collected, ...shown } };
}

function maskedLog(log: GuestFile, mask: Mask | undefined): GuestFile {
  if (log.kind !== 'file') return log;
  if (mask) return { ...log, bytes: hide(log.bytes, mask, log.bytes.length - logTailBytes) };
  return { ...log, bytes: Buffer.from(log.bytes.includes(truncationMark) ? truncationMark : '') };
}

function maskedResult(result: GuestFile, mask: Mask | undefined): GuestFile {
  if (result.kind !== 'file' || result.size > result.bytes.length) return result;
  const said = parseObject(result.bytes);
  if (!said) return result;
  const { message, bootstrap_error: error } = said;
  if (typeof message === 'string') said['message'] = mask && hideInText(message, mask);
  if (typeof error === 'string' && error !== '')
    said['bootstrap_error'] = mask ? hideInText(error, mask) : leftOut;
  const bytes = Buffer.from(JSON.stringify(said));
  return { kind: 'file', size: bytes.length, bytes };
}

/** A note names files of the guest. */
function maskedNote({ reason, message }: ArtifactNote, mask: Mask | undefined): ArtifactNote {
  return { reason, message: mask ? hideInText(message, mask) : leftOut };
}

function parseObject(bytes: Buffer): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(bytes.toString('utf8'));
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? { ...value } : undefined;
  } catch {
    return undefined;
  }
}

function hideInText(text: string, mask: Mask): string {
  return hide(Buffer.from(text), mask).toString('utf8');
}

/** The bytes from `from` on, with stars for what is masked, also where that begins before `from`. */
function hide(bytes: Buffer, mask: Mask, from = 0): Buffer {
  const hidden = new Uint8Array(bytes.length);
  for (const text of mask) {
    for (let at = bytes.indexOf(text); at !== -1; at = bytes.indexOf(text, at + text.length)) {
      hidden.fill(1, at, at + text.length);
    }
  }
  const parts: Buffer[] = [];
  for (let at = Math.max(0, from); at < bytes.length;) {
    const next = hidden.indexOf(hidden[at] === 1 ? 0 : 1, at);
    const end = next === -1 ? bytes.length : next;
    parts.push(hidden[at] === 1 ? Buffer.from(stars) : bytes.subarray(at, end));
    at = end;
  }
  return Buffer.concat(parts);
}
