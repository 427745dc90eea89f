import * as z from 'zod';
import { errorFromStatus } from './api-error.ts';
import { keyOf } from './resource.ts';

/** All that is needed to know which object it is, where the rest of it cannot be read. */
export interface Identity {
  key: string;
  uid: string;
  resourceVersion: string;
}

export type WatchEvent =
  { type: 'BOOKMARK'; resourceVersion: string } | { type: 'ADDED' | 'MODIFIED' | 'DELETED'; object: unknown };

const Line = z.object({
  type: z.enum(['ADDED', 'MODIFIED', 'DELETED', 'BOOKMARK', 'ERROR']),
  object: z.unknown(),
});
const Metadata = z.object({
  metadata: z.object({
    name: z.string(),
    namespace: z.string().optional(),
    uid: z.string(),
    resourceVersion: z.string(),
  }),
});
const Bookmark = z.object({ metadata: z.object({ resourceVersion: z.string() }) });

/**
 * Reads one line of a watch
 * (https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes).
 *
 * @param what Names the watch in errors.
 * @throws ApiError when the line is the server's ERROR, another error when it is no watch event.
 */
export function readWatchEvent(line: string, what: string): WatchEvent {
  const { type, object } = Line.parse(JSON.parse(line));
  if (type === 'ERROR') throw errorFromStatus(what, object, 500);
  if (type !== 'BOOKMARK') return { type, object };
  return { type, resourceVersion: Bookmark.parse(object).metadata.resourceVersion };
}

/** @throws z.ZodError when it is no object of the API. */
export function identityOf(object: unknown): Identity {
  const { metadata } = Metadata.parse(object);
  return { key: keyOf(metadata), uid: metadata.uid, resourceVersion: metadata.resourceVersion };
}
