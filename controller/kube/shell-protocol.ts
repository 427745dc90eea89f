import * as z from 'zod';
import { printableJson } from '../printable.ts';

/**
 * What goes over a shell's WebSocket: the protocol of `pods/exec`, whose messages are binary and begin with the number
 * of their channel.
 */
export const shellProtocol = 'v5.channel.k8s.io';

export const channels = { stdin: 0, stdout: 1, stderr: 2, error: 3, resize: 4, close: 255 } as const;
export type Channel = (typeof channels)[keyof typeof channels];

/** The most bytes of a message from a client, its channel included. */
export const maxMessageBytes = 64 * 1024;

/** Columns and rows of a terminal. */
export interface TerminalSize {
  width: number;
  height: number;
}

/** How a shell ended: with an exit code, or without one, for a reason in CamelCase and in words. */
export type ShellEnd = { kind: 'exited'; code: number } | { kind: 'broken'; reason: string; message: string };

export type ClientMessage =
  { kind: 'input'; data: Buffer } | { kind: 'resize'; size: TerminalSize } | { kind: 'endOfInput' };

/** As in TerminalSize of client-go, whose fields have no JSON names of their own. */
const Resize = z.object({ Width: z.int().min(1).max(10_000), Height: z.int().min(1).max(10_000) });

/** `metav1.Status`, as far as it tells how a command ended. */
const EndStatus = z.object({
  status: z.enum(['Success', 'Failure']),
  reason: z.string().max(128).optional(),
  message: z.string().max(4096).optional(),
  details: z
    .object({
      causes: z
        .array(z.object({ reason: z.string(), message: z.string() }))
        .max(16)
        .optional(),
    })
    .optional(),
});

/** A message on a channel. */
export function framed(channel: Channel, payload: Buffer): Buffer {
  return Buffer.concat([Buffer.of(channel), payload]);
}

export function resizeMessage({ width, height }: TerminalSize): Buffer {
  return framed(channels.resize, Buffer.from(JSON.stringify({ Width: width, Height: height })));
}

/** Says that standard input has ended. */
export function endOfInputMessage(): Buffer {
  return framed(channels.close, Buffer.of(channels.stdin));
}

/** Reads a message of a client; undefined when it is none that a client may send. */
export function parseClientMessage(message: Buffer): ClientMessage | undefined {
  const payload = message.subarray(1);
  switch (message[0]) {
    case channels.stdin:
      return { kind: 'input', data: payload };
    case channels.resize: {
      const size = Resize.safeParse(json(payload)).data;
      return size && { kind: 'resize', size: { width: size.Width, height: size.Height } };
    }
    case channels.close:
      return payload.length === 1 && payload[0] === channels.stdin ? { kind: 'endOfInput' } : undefined;
    case undefined:
    default:
      return undefined;
  }
}

/** The last message of a shell: a Status, as `pods/exec` ends. */
export function endMessage(end: ShellEnd): Buffer {
  const status =
    end.kind === 'exited'
      ? exited(end.code)
      : { status: 'Failure', reason: end.reason, message: end.message.slice(0, 4096) };
  const whole = { kind: 'Status', apiVersion: 'v1', metadata: {}, ...status };
  return framed(channels.error, Buffer.from(printableJson(whole)));
}

/** Reads what {@link endMessage} wrote, without its channel. */
export function parseEnd(payload: Buffer): ShellEnd {
  const status = EndStatus.safeParse(json(payload)).data;
  if (status?.status === 'Success') return { kind: 'exited', code: 0 };
  const code = status?.details?.causes?.find(({ reason }) => reason === 'ExitCode')?.message;
  if (code !== undefined && /^\d{1,3}$/.test(code)) return { kind: 'exited', code: Number(code) };
  return {
    kind: 'broken',
    reason: status?.reason ?? 'Unknown',
    message: status?.message ?? 'it says not why',
  };
}

function exited(code: number): object {
  if (code === 0) return { status: 'Success' };
  return {
    status: 'Failure',
    reason: 'NonZeroExitCode',
    message: `command terminated with non-zero exit code: ${code}`,
    details: { causes: [{ reason: 'ExitCode', message: String(code) }] },
  };
}

function json(payload: Buffer): unknown {
  try {
    return JSON.parse(payload.toString('utf8'));
  } catch {
    return undefined;
  }
}
