/** What is kept of one CiJob, as far as eviction cares. */
export interface Kept {
  namespace: string;
  uid: string;
  bytes: number;
  /** When it was last written, in milliseconds since the epoch. */
  writtenAt: number;
  /** It is being written: it stays. */
  live: boolean;
  /** Somebody reads it just now: it goes after all else of its namespace. */
  read: boolean;
}

/**
 * Which of the logs is evicted so that a CiJob may write more: the oldest one of the namespace that uses
 * the most. Undefined when that would be unfair: a namespace makes room only for itself, and for those that use less
 * than it does. So one that floods the volume loses logs of its own, and none of another namespace's.
 *
 * @param writer the CiJob that writes; nothing of its own goes
 * @param inTheMaking what namespaces use beside that, and cannot be evicted
 */
export function nextToEvict<T extends Kept>(
  kept: readonly T[],
  writer: Pick<Kept, 'namespace' | 'uid'>,
  inTheMaking: Iterable<Pick<Kept, 'namespace' | 'bytes'>> = [],
): T | undefined {
  const used = usedByNamespace([...kept, ...inTheMaking]);
  const use = (namespace: string) => used.get(namespace) ?? 0;
  return kept
    .filter(({ bytes, live, uid }) => bytes > 0 && !live && uid !== writer.uid)
    .filter(({ namespace }) => namespace === writer.namespace || use(namespace) > use(writer.namespace))
    .reduce<T | undefined>((first, one) => {
      if (!first) return one;
      return byOrder(one, first, use) < 0 ? one : first;
    }, undefined);
}

/** Bytes that each namespace uses. */
export function usedByNamespace(kept: Iterable<Pick<Kept, 'namespace' | 'bytes'>>): Map<string, number> {
  const used = new Map<string, number>();
  for (const { namespace, bytes } of kept) used.set(namespace, (used.get(namespace) ?? 0) + bytes);
  return used;
}

/** The order in which logs go. */
function byOrder(a: Kept, b: Kept, use: (namespace: string) => number): number {
  return (
    use(b.namespace) - use(a.namespace) ||
    // Of two that use the same, all of one goes before the other's.
    Number(a.namespace > b.namespace) - Number(a.namespace < b.namespace) ||
    Number(a.read) - Number(b.read) ||
    a.writtenAt - b.writtenAt
  );
}
