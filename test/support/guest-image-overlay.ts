import { createHash } from 'node:crypto';
import { chmod, chown, mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { GuestKind } from './guest-image.ts';

/** The cheap layer on top of a base: the runner, the directories of the contract, and the guest's start. */
export interface GuestOverlay {
  digest: string;
  /** Writes metadata.yaml and rootfs/ into a directory. */
  write: (dir: string) => Promise<void>;
}

/** One entry of the layer. Owners are numeric: 1000:100 is pikaci:users. */
type Entry =
  | { path: string; text: string; mode: number }
  | { path: string; link: string }
  | { path: string; directory: true; mode: number; owner?: [uid: number, gid: number] };

const nix = new URL('../../nix/incus/', import.meta.url);
const pikaci: [uid: number, gid: number] = [1000, 100];

const fromNix = (name: string) => readFile(new URL(name, nix), 'utf8');

/** What every guest has, whatever it is made of (docs/guest-contract.md). */
async function contractEntries(): Promise<Entry[]> {
  const root = [
    '/workspace',
    '/workspace/snapshot',
    '/staged',
    '/staged/linux-rust',
    '/staged/linux-rust/workspace-deps',
    '/staged/linux-rust/workspace-build',
  ];
  const job = ['/cargo-home', '/cargo-target', '/home/pikaci'];
  return [
    ...root.map((path) => ({ path, directory: true as const, mode: 0o755 })),
    ...job.map((path) => ({ path, directory: true as const, mode: 0o755, owner: pikaci })),
    { path: '/artifacts', directory: true, mode: 0o1777 },
    { path: '/etc/pikaci/guest-contract', text: await fromNix('guest-contract'), mode: 0o644 },
    { path: '/etc/pikaci/guest-interface', text: await fromNix('guest-interface'), mode: 0o644 },
    { path: '/usr/bin/pikaci-incus-run', text: await fromNix('pikaci-incus-run'), mode: 0o755 },
    // Hidden where an init mounts /run fresh; there from the first moment where it does not.
    { path: '/run/current-system/sw', link: '/usr' },
    // No part of the contract: what a mount must not lead through.
    { path: '/srv/link', link: '/tmp' },
  ];
}

/**
 * PID 1 of the systemd guest, for a moment. systemd leaves a /run alone that is mounted already, and this one has the
 * runner in it before it takes the place of the image's own: at no moment does an exec fail with "Command not found".
 * By tmpfiles.d alone it would, for the first half second.
 */
const systemdInit = `#!/bin/sh
mount -t tmpfs -o mode=0755,nosuid,nodev tmpfs /mnt && mkdir /mnt/current-system && ln -s /usr /mnt/current-system/sw &&
  mount --bind /mnt /run && umount /mnt
exec /lib/systemd/systemd "$@"
`;

/** Says to Incus that this guest takes jobs, as a virtual machine's image must (lifecycle event instance-ready). */
const readyService = `[Unit]
Description=Tell Incus that this guest takes jobs
ConditionPathExists=/dev/incus/sock
After=basic.target

[Service]
Type=oneshot
ExecStart=/usr/bin/pikaci-incus-ready

[Install]
WantedBy=multi-user.target
`;

const readyScript = `#!/usr/bin/python3
import socket
body = b'{"state":"Ready"}'
incus = socket.socket(socket.AF_UNIX)
incus.connect("/dev/incus/sock")
incus.sendall(
    b"PATCH /1.0 HTTP/1.1\\r\\nHost: incus\\r\\nContent-Type: application/json\\r\\nConnection: close\\r\\n"
    b"Content-Length: %d\\r\\n\\r\\n%s" % (len(body), body)
)
answer = incus.recv(4096)
if b" 200 " not in answer.split(b"\\r\\n")[0]:
    raise SystemExit("Incus answered: %r" % answer)
`;

/**
 * PID 1 of the busybox guest: it reaps what is orphaned, and goes at once when it is told to. LXC asks with SIGPWR to
 * halt and with SIGINT to reboot.
 */
const busyboxInit = `#!/bin/bash
trap 'exit 0' PWR TERM
trap 'exec /bin/busybox reboot -f' INT
# So that the runner sees how many processes and how much memory the guest may have: by the first version of control
# groups, or the second.
mount() { /bin/busybox mount -n "$@" 2>/dev/null; }
mount -t tmpfs none /sys/fs/cgroup
/bin/busybox mkdir /sys/fs/cgroup/pids /sys/fs/cgroup/memory
if mount -t cgroup -o pids none /sys/fs/cgroup/pids
then mount -t cgroup -o memory none /sys/fs/cgroup/memory
else mount -t cgroup2 none /sys/fs/cgroup
fi
while :; do
  /bin/busybox sleep 86400 &
  wait
done
`;

const startEntries: Record<GuestKind, Entry[]> = {
  systemd: [
    { path: '/usr/sbin/init', text: systemdInit, mode: 0o755 },
    // Where those mounts are not allowed.
    { path: '/etc/tmpfiles.d/pikaci.conf', text: 'L /run/current-system/sw - - - - /usr\n', mode: 0o644 },
    { path: '/usr/bin/pikaci-incus-ready', text: readyScript, mode: 0o755 },
    { path: '/etc/systemd/system/pikaci-incus-ready.service', text: readyService, mode: 0o644 },
    {
      path: '/etc/systemd/system/multi-user.target.wants/pikaci-incus-ready.service',
      link: '../pikaci-incus-ready.service',
    },
  ],
  busybox: [{ path: '/sbin/init', text: busyboxInit, mode: 0o755 }],
};

/** The layer of one kind of guest. */
export async function guestOverlay(kind: GuestKind): Promise<GuestOverlay> {
  const entries = [...(await contractEntries()), ...startEntries[kind]];
  const architecture = process.arch === 'arm64' ? 'aarch64' : 'x86_64';
  const metadata = [
    `architecture: ${architecture}`,
    'creation_date: 1700000000',
    'properties:',
    `  description: cijob-controller test guest (${kind})`,
    `  os: ${kind}`,
    '',
  ].join('\n');
  return {
    digest: createHash('sha256')
      .update(JSON.stringify([metadata, entries]))
      .digest('hex'),
    write: async (dir) => {
      await writeFile(join(dir, 'metadata.yaml'), metadata);
      for (const entry of entries) await writeEntry(join(dir, 'rootfs', entry.path), entry);
    },
  };
}

async function writeEntry(path: string, entry: Entry): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  if ('link' in entry) {
    await symlink(entry.link, path);
  } else if ('directory' in entry) {
    await mkdir(path, { recursive: true });
    if (entry.owner) await chown(path, ...entry.owner);
    await chmod(path, entry.mode);
  } else {
    await writeFile(path, entry.text);
    await chmod(path, entry.mode);
  }
}
