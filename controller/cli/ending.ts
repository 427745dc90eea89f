import type { EndCause } from './program-end.ts';

/** Why a run ends before its work is done, and when that began, in milliseconds since the epoch. */
export interface Ending {
  cause: EndCause;
  since: number;
}

/** What to do about a cause: call the jobs off, leave without waiting for that, or go on with what is under way. */
export type Answer = 'cancel' | 'leave' | 'go on';

/**
 * What one Ctrl-C may bring, one after the other, in milliseconds: it comes twice where a wrapper such as npm hands on what
 * the terminal sent to both, and the reader of a pipe, which the terminal ends as well, may be gone first.
 */
const onePress = 500;

/** Takes up a cause, of which there may be several. */
export function takeUp(
  ending: Ending | undefined,
  cause: EndCause,
  now: number,
): { ending: Ending; answer: Answer } {
  if (!ending) return { ending: { cause, since: now }, answer: 'cancel' };
  const isSamePress = now - ending.since <= onePress;
  if (!isSamePress && isOfKeyboard(cause)) return { ending, answer: 'leave' };
  // Of a press that has ended both, the signal is what the user knows of.
  const isWhy = isSamePress && ending.cause.kind === 'output' && cause.kind === 'signal';
  return { ending: isWhy ? { ...ending, cause } : ending, answer: 'go on' };
}

/**
 * Whether somebody at the keyboard asks, who does not want to wait when asking again. A terminal that is closed sends SIGHUP
 * more than once, and whoever stops a service may send SIGTERM again.
 */
function isOfKeyboard(cause: EndCause): boolean {
  return cause.kind === 'signal' && ['SIGINT', 'SIGQUIT'].includes(cause.signal);
}
