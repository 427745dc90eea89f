import { readFile } from 'node:fs/promises';
import { z } from 'zod';

/** One request that changed something, as the API server itself recorded it (audit.k8s.io/v1, level Metadata). */
const auditEvent = z.object({
  auditID: z.string(),
  verb: z.string(),
  user: z.object({ username: z.string() }),
  userAgent: z.string().optional(),
  objectRef: z
    .object({
      resource: z.string().optional(),
      namespace: z.string().optional(),
      name: z.string().optional(),
      apiGroup: z.string().optional(),
      subresource: z.string().optional(),
    })
    .optional(),
  responseStatus: z.object({ code: z.number().optional() }).optional(),
  requestReceivedTimestamp: z.string(),
});
export type AuditEvent = z.infer<typeof auditEvent>;

/** What an API server must be told so that it records every write, and nothing else, once. */
export const auditPolicy = {
  apiVersion: 'audit.k8s.io/v1',
  kind: 'Policy',
  omitStages: ['RequestReceived', 'ResponseStarted'],
  rules: [
    { level: 'Metadata', verbs: ['create', 'update', 'patch', 'delete', 'deletecollection'] },
    { level: 'None' },
  ],
};

/** All writes so far, in order. An event stands in the file before the client has its answer. */
export async function readAuditLog(file: string): Promise<AuditEvent[]> {
  const text = await readFile(file, 'utf8').catch(() => '');
  // The last line may be half written.
  const lines = text.slice(0, text.lastIndexOf('\n') + 1).split('\n');
  return lines.filter((line) => line !== '').map((line) => auditEvent.parse(JSON.parse(line)));
}

/** Which object writes are asked for. `resource` is the plural: "cijobs". What is left out matches all. */
export interface WriteQuery {
  resource: string;
  namespace?: string;
  name?: string;
}

/** The writes to one object, or to all of a kind; subresources (status) included. */
export function writesTo(events: readonly AuditEvent[], query: WriteQuery): AuditEvent[] {
  return events.filter(
    ({ objectRef }) =>
      objectRef?.resource === query.resource &&
      (query.namespace === undefined || objectRef.namespace === query.namespace) &&
      (query.name === undefined || objectRef.name === query.name),
  );
}
