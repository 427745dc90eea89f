import { chmod, mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';

/**
 * A new, empty directory of the test's own. Its name begins with `cijob-` so that what a killed run left is easy to
 * see. It can be walked through, but not listed, by other users: a socket inside may be handed to one of them.
 *
 * @param what a few letters: paths of unix sockets may be 107 bytes long, and these directories hold some.
 */
export async function makeTempDir(what: string): Promise<string> {
  // Inside the one directory of a whole run (TMPDIR is then set to it) the long name is not needed again.
  const parent = tmpdir();
  const prefix = basename(parent).startsWith('cijob-') ? what : `cijob-${what}`;
  const dir = await mkdtemp(join(parent, `${prefix}-`));
  await chmod(dir, 0o711);
  return dir;
}
