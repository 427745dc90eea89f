/** How an attempt ended, and the name of its instance. */
export interface Ended {
  instance?: string | undefined;
  reason: string;
  message: string;
}

/** As many characters of each message as are compared: what is kept of an earlier one may be cut. */
const compared = 900;

/** Whether two attempts ended in the same way: the same words, but for names of instances, numbers and identifiers. */
export function isSameFailure(one: Ended, other: Ended): boolean {
  return one.reason === other.reason && essence(one) === essence(other);
}

function essence({ instance, message }: Ended): string {
  const named = instance === undefined ? message : message.replaceAll(instance, '#');
  return named.slice(0, compared).replaceAll(/[0-9a-f]*[0-9][0-9a-f]*/gi, '#');
}
