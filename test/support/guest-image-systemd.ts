import { appendFile, glob, readFile, rm, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { run, runOk } from './command.ts';
import { type GuestBase, sourceOf } from './guest-image.ts';

/** Beyond what the minbase variant brings. python3: staged wrappers and the guest's Ready message use it. */
const packages = ['systemd', 'systemd-sysv', 'dbus', 'python3-minimal'];

/** Nothing that runs in a throw-away guest reads these; leaving them out makes each launch quicker. Glob patterns. */
const ballast = [
  'boot',
  'etc/apt',
  'usr/bin/{apt*,dpkg*,perl*}',
  'usr/lib/*/{gconv,libapt-*,perl,perl-base}',
  'usr/lib/{apt,dpkg,udev/hwdb.bin,udev/hwdb.d}',
  'usr/share/{bash-completion,bug,common-licenses,debconf,doc,dpkg,i18n,info,lintian,locale,man,perl5,zoneinfo,zsh}',
  'var/cache/{apt,debconf}',
  'var/lib/{apt,dpkg}',
  'var/log/{bootstrap,dpkg,alternatives}.log',
];

/** Units that only cost time in a container that lives for one command. */
const masked = [
  'apt-daily-upgrade.timer',
  'apt-daily.timer',
  'console-getty.service',
  'container-getty@.service',
  'dpkg-db-backup.timer',
  'e2scrub_all.timer',
  'e2scrub_reap.service',
  'fstrim.timer',
  'getty.target',
  'modprobe@.service',
  'getty-static.service',
  'proc-sys-fs-binfmt_misc.automount',
  'sys-fs-fuse-connections.mount',
  'sys-kernel-config.mount',
  'sys-kernel-debug.mount',
  'sys-kernel-tracing.mount',
  'systemd-ask-password-wall.path',
  'systemd-journal-flush.service',
  'systemd-logind.service',
  'systemd-modules-load.service',
  'systemd-networkd-wait-online.service',
  'systemd-pstore.service',
  'systemd-random-seed.service',
  'systemd-remount-fs.service',
  'systemd-sysctl.service',
  'systemd-sysusers.service',
  'systemd-tmpfiles-clean.timer',
  'systemd-update-utmp.service',
  'systemd-update-utmp-runlevel.service',
];

/** A minimal Debian with systemd, made by debootstrap (about a minute). */
export const systemdBase: GuestBase = {
  inputs: async () => [await sourceOf(import.meta.url), await suite(), process.arch].join('\n'),

  build: async (rootfs, onProgress) => {
    const name = await suite();
    const mirror = await mirrorOf(name);
    await runOk(
      'debootstrap',
      ['--variant=minbase', `--include=${packages.join(',')}`, name, rootfs, mirror],
      {
        timeoutMs: 15 * 60_000,
        onLine: (line) => {
          if (/^(E|W):|Installing core packages|Unpacking the base system|Configuring the base/.test(line)) {
            onProgress(`  ${line}`);
          }
        },
      },
    ).finally(async () => {
      // Left mounted when it fails halfway, and then in the way of removing the directory.
      for (const path of ['proc', 'sys']) await run('umount', ['--recursive', join(rootfs, path)]);
    });
    for await (const path of glob(ballast, { cwd: rootfs })) {
      await rm(join(rootfs, path), { recursive: true, force: true });
    }
    for (const unit of masked) {
      const path = join(rootfs, 'etc/systemd/system', unit);
      await rm(path, { recursive: true, force: true });
      await symlink('/dev/null', path);
    }
    // Tar must not find a link under the name of the init that the overlay brings.
    await rm(join(rootfs, 'usr/sbin/init'), { force: true });
    await rm(join(rootfs, 'run'), { recursive: true, force: true });
    await appendFile(join(rootfs, 'etc/passwd'), 'pikaci:x:1000:100::/home/pikaci:/bin/bash\n');
    await rm(join(rootfs, 'etc/resolv.conf'), { force: true });
    await rm(join(rootfs, 'etc/hostname'), { force: true });
    // Where NixOS and the runner look for certificates; no package brings any.
    await symlink('ca-certificates.crt', join(rootfs, 'etc/ssl/certs/ca-bundle.crt')).catch(() => undefined);
  },
};

/** The release this machine runs: its mirror and its keys are known to work here. */
async function suite(): Promise<string> {
  const release = /^VERSION_CODENAME=(\w+)$/m.exec(await readFile('/etc/os-release', 'utf8'))?.[1];
  if (release === undefined) throw new Error('/etc/os-release names no Debian release (VERSION_CODENAME)');
  return release;
}

/** Where this machine gets that release from. apt itself reads its configuration, in whichever of its formats. */
async function mirrorOf(release: string): Promise<string> {
  const format = ['--format', '$(RELEASE)\t$(COMPONENT)\t$(REPO_URI)', 'Created-By: Packages'];
  const targets = await runOk('apt-get', ['indextargets', '--no-release-info', ...format]);
  const rows = targets.split('\n').map((line) => line.split('\t'));
  const mirror = rows.find((row) => row[0] === release && row[1] === 'main')?.[2];
  if (mirror === undefined) {
    throw new Error(`apt has no source for ${release} main: see /etc/apt/sources.list and sources.list.d`);
  }
  return mirror;
}
