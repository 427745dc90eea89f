import type { IncomingMessage } from 'node:http';
import * as z from 'zod';
import { serverName } from '../kube/refusal.ts';
import type { ServerAccess } from './server-access.ts';

/** The controller's server, or the API server in front of it, does not give what was asked for: its own words. */
export class ServerRefused extends Error {
  override readonly name = 'ServerRefused';
  readonly code: number;
  /** Whether the controller said so, and not what lies between. */
  readonly byController: boolean;

  constructor(code: number, message: string, byController: boolean) {
    super(message);
    this.code = code;
    this.byController = byController;
  }

  /** Whether the controller may answer otherwise in a moment: another one takes over. */
  get passes(): boolean {
    return this.byController && (this.code === 429 || this.code >= 500);
  }
}

const Status = z.object({
  kind: z.literal('Status'),
  message: z.string().max(4096),
  details: z.object({ kind: z.string().optional() }).optional(),
});
const maxStatusBytes = 64 * 1024;

/** Reads an answer that is none of success. */
export async function readRefusal(
  answer: IncomingMessage,
  { service }: ServerAccess,
): Promise<ServerRefused> {
  const code = answer.statusCode ?? 0;
  const byController = answer.headers['server'] === serverName;
  const status = await readStatus(answer);
  if (!status) return new ServerRefused(code, `HTTP ${code}; is this the controller's server?`, byController);
  return new ServerRefused(
    code,
    byController ? status.message : explained(code, status, service),
    byController,
  );
}

/** What the API server refuses on the way to the Service, and what helps. */
function explained(
  code: number,
  { message, details }: z.infer<typeof Status>,
  service: ServerAccess['service'],
): string {
  if (!service) return message;
  const { namespace, name } = service;
  if (code === 403 && details?.kind === 'services') {
    return `${message}: the way to the controller is the right to "get" "services/proxy" with the name "${name}" in the namespace "${namespace}" (or --server)`;
  }
  if (code === 404 && details?.kind === 'services') {
    return `${message}: the controller serves logs and shells where it is installed with them, in the namespace of --controller-namespace (or --server)`;
  }
  if (code === 503 && message.includes('error trying to reach service')) {
    return `${message}: the API server does not reach the controller's server; where the network enforces policies, the NetworkPolicy cijob-logs in the namespace "${namespace}" must name the API server's addresses`;
  }
  return message;
}

async function readStatus(answer: IncomingMessage): Promise<z.infer<typeof Status> | undefined> {
  let text = '';
  try {
    for await (const chunk of answer as AsyncIterable<Buffer>) {
      text += chunk.toString('utf8');
      if (text.length > maxStatusBytes) answer.destroy();
    }
    return Status.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}
