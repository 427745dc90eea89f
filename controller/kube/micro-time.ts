/**
 * `metav1.MicroTime`: RFC 3339 in UTC with exactly six decimals, which Lease and Event times need.
 *
 * @param milliseconds Since the epoch.
 */
export function microTime(milliseconds: number): string {
  return new Date(milliseconds).toISOString().replace('Z', '000Z');
}
