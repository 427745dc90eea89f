import { createHash } from 'node:crypto';
import { chmod, copyFile, mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { runOk } from './command.ts';
import { type GuestBase, sourceOf } from './guest-image.ts';

/** Where Debian's busybox-static and bash-static put their one program each. */
const busybox = '/bin/busybox';
const bash = '/bin/bash-static';

/** A root file system of two static programs. */
export const busyboxBase: GuestBase = {
  inputs: async () => {
    const programs = await Promise.all([busybox, bash].map((path) => readFile(path)));
    const digests = programs.map((bytes) => createHash('sha256').update(bytes).digest('hex'));
    return [await sourceOf(import.meta.url), ...digests].join('\n');
  },

  build: async (rootfs) => {
    const directories = [
      'bin',
      'dev',
      'etc',
      'proc',
      'root',
      'run',
      'sbin',
      'sys',
      'tmp',
      'usr/bin',
      'usr/sbin',
    ];
    for (const path of [...directories, 'var/lib']) await mkdir(join(rootfs, path), { recursive: true });
    await chmod(join(rootfs, 'tmp'), 0o1777);
    await copyFile(busybox, join(rootfs, 'bin/busybox'));
    await copyFile(bash, join(rootfs, 'bin/bash'));
    for (const program of ['bin/busybox', 'bin/bash']) await chmod(join(rootfs, program), 0o755);
    await symlink('/bin/bash', join(rootfs, 'usr/bin/bash'));
    const applets = (await runOk(busybox, ['--list'])).trim().split('\n');
    for (const applet of applets) {
      // /bin/sh is bash: a hush or ash would be one more shell to think of.
      await symlink(applet === 'sh' ? '/bin/bash' : '/bin/busybox', join(rootfs, 'usr/bin', applet));
    }
    await symlink('/bin/bash', join(rootfs, 'bin/sh'));
    await writeFile(
      join(rootfs, 'etc/passwd'),
      'root:x:0:0:root:/root:/bin/bash\npikaci:x:1000:100::/home/pikaci:/bin/bash\n',
    );
    await writeFile(join(rootfs, 'etc/group'), 'root:x:0:\nusers:x:100:\n');
  },
};
