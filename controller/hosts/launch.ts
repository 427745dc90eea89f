import type { GuestFile } from '../incus/client.ts';
import { requestOf, type Command } from '../incus/commands.ts';
import type { CommandOutcome } from '../incus/outcome.ts';
import { logSourceOf } from './live-logs.ts';
import type { Ground } from './perform.ts';

/** Where an image states which versions of the guest contract its runner keeps (docs/guest-contract.md). */
const contractPath = '/etc/pikaci/guest-contract';
const contractVersion = '2';

/**
 * Puts the job's variables where the runner takes them from, starts the runner, and follows the log.
 *
 * @param signal ends it, as long as the runner was not started. Rejects then with its reason.
 */
export async function launch(
  command: Extract<Command, { verb: 'launch' }>,
  ground: Ground,
  signal?: AbortSignal,
): Promise<CommandOutcome> {
  const { client, watch, inventory, project, logs, turns } = ground;
  const { instance, environment } = command;
  if (environment.size > 0) {
    if (!keepsContract(await client.readFile(instance, contractPath, { first: 64 }, signal)))
      return imageOutdated;
    await client.putEnvironment(instance, environment, signal);
  }
  signal?.throwIfAborted();
  const operation = await client.start(requestOf(command, project));
  watch.began(operation);
  const log = logSourceOf(inventory.get(instance));
  if (log) logs?.follow({ ...ground, turns: turns.logs }, log);
  return { kind: 'launched', operation: operation.id };
}

/** A runner that keeps only an older contract would run the command, and drop its variables without a word. */
const imageOutdated: CommandOutcome = {
  kind: 'refused',
  reason: 'ImageOutdated',
  message: `the image does not say in ${contractPath} that it keeps the guest contract ${contractVersion}, by which a job gets its variables: make it with the runner of this version (docs/guest-image.md)`,
};

function keepsContract(stated: GuestFile): boolean {
  return stated.kind === 'file' && stated.bytes.toString('latin1').split(/\s+/).includes(contractVersion);
}
