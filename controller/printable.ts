/**
 * What steers a terminal, or fools its reader: control characters (C0 but for tab and line feed, DEL, C1), and the
 * characters by which Unicode reorders what is shown (embeddings, overrides and isolates of text direction). The marks
 * that only say a direction, which Arabic and Hebrew need, move nothing else and stay.
 */
const steering = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g;

/** Text that somebody else chose, such as a guest, for a terminal: what would steer it shows as U+FFFD. */
export function printable(text: string): string {
  return text.replaceAll(steering, '\uFFFD');
}

/** The same in one line: it can neither steer the terminal nor pass for a line of ours. */
export function printableLine(text: string): string {
  return printable(text.replaceAll(/[\t\r\n]+/g, ' '));
}

/**
 * JSON of the same value, of which nothing steers a terminal: as JSON may write any character of a string, what
 * {@link printable} takes away is written as `\uXXXX`.
 *
 * @param indent spaces for each level; one line when left out.
 */
export function printableJson(value: unknown, indent?: number): string {
  return escapedJson(JSON.stringify(value, null, indent));
}

/** The same for JSON that is written already, such as a line of a log. */
export function escapedJson(json: string): string {
  return json.replaceAll(steering, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
