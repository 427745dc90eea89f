import type { IncusClient } from '../incus/client.ts';
import type { InstanceView } from '../incus/inventory.ts';
import { logOf, shortened, startErrors } from '../incus/start-errors.ts';
import { printableLine } from '../printable.ts';

/** A status keeps 1024 characters of why an attempt ended (api/cijob-status.ts). */
const most = 900;

/**
 * Why an instance did not start, in the words of Incus or of what Incus runs it with. Of a container, Incus says only that
 * a program failed, and the log says why; of a VM, either may.
 *
 * @param error what Incus says; undefined when nobody heard it. Of a container the log can stand for it.
 */
export async function whyNotStarted(
  client: Pick<IncusClient, 'instanceLog'>,
  { name, type }: Pick<InstanceView, 'name' | 'type'>,
  error?: string,
): Promise<string | undefined> {
  const logged = startErrors(type, await client.instanceLog(name, logOf[type]).catch(() => '')).join('; ');
  if (type === 'container' && logged !== '') return shortened(printableLine(logged), most);
  if (error === undefined || logged === '') return error;
  return shortened(printableLine(`${error}: ${logged}`), most);
}
