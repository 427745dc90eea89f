import { chmod, copyFile, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { run, runOk } from '../../support/command.ts';
import { buildGuestImage } from '../../support/guest-image.ts';
import { startBench, type Bench } from '../support/bench.ts';
import { nixDir } from './nix.ts';

let bench: Bench;
let dir: string;
/** Images that differ. */
const images: string[] = [];
const alias = 'imported/guest';

beforeAll(async () => {
  bench = await startBench();
  dir = await mkdtemp(join(tmpdir(), 'cijob-import-'));
  const { tarball } = await buildGuestImage('busybox');
  for (const name of ['a', 'b', 'c', 'd']) {
    const image = join(dir, `${name} image.tar`);
    await copyFile(tarball, image);
    await writeFile(join(dir, 'etc-marker'), name);
    await runOk('tar', ['--append', '--file', image, '--directory', dir, 'etc-marker']);
    images.push(image);
  }
  // A stand-in for ssh that drops the host and hands the command to a shell, as sshd does.
  const ssh = join(dir, 'ssh');
  await writeFile(ssh, '#!/bin/sh\necho "$1" >>"$0.hosts"; shift; exec sh -c "$*"\n');
  await chmod(ssh, 0o755);
});
afterAll(async () => {
  const { incus } = bench.host;
  for (const { fingerprint } of await stored()) await incus.incusOk(['image', 'delete', fingerprint]);
  await rm(dir, { recursive: true, force: true });
  await bench.stop();
});

async function importImage(image: string, ...args: string[]): Promise<string> {
  const script = join(nixDir, 'incus/import');
  const env = { ...bench.host.incus.env, SSH: join(dir, 'ssh'), PROOF: join(dir, 'proof') };
  return (await runOk(script, ['--alias', alias, ...args, '--image', image], { env })).trim();
}

async function stored(): Promise<{ fingerprint: string }[]> {
  const images = (await bench.host.incus.query('/1.0/images?recursion=1')) as {
    fingerprint: string;
    properties: Record<string, string>;
  }[];
  return images
    .filter((image) => image.properties['pikaci.alias'] === alias)
    .sort((a, b) => a.fingerprint.localeCompare(b.fingerprint));
}

async function target(): Promise<string> {
  const found = await bench.host.incus.query(`/1.0/images/aliases/${encodeURIComponent(alias)}`);
  return (found as { target: string }).target;
}

describe('importing a guest image', () => {
  test('makes the alias, and turns it from image to image, keeping the one before', async () => {
    const first = await importImage(images[0]!);
    expect(await target()).toBe(first);
    const second = await importImage(images[1]!);
    expect(await target()).toBe(second);
    expect((await stored()).map((image) => image.fingerprint).sort()).toEqual([first, second].sort());

    const third = await importImage(images[2]!);
    expect(await target()).toBe(third);
    expect((await stored()).map((image) => image.fingerprint).sort()).toEqual([second, third].sort());
  });

  test('changes nothing when it is done again', async () => {
    const before = await stored();
    expect(await importImage(images[2]!)).toBe(await target());
    expect(await stored()).toEqual(before);
  });

  test('leaves an instance of an image that goes as it is', async () => {
    const { incus, project } = bench.host;
    await importImage(images[0]!);
    await incus.incusOk(['launch', alias, 'stays', '--project', project]);
    await importImage(images[1]!, '--keep', '1');
    expect(await stored()).toHaveLength(1);
    expect(await incus.execOk(project, 'stays', ['echo', 'here'])).toBe('here\n');
  });

  test('works the same on another machine', async () => {
    const fingerprint = await importImage(images[3]!, '--host', 'root@build-1.example.org');
    expect(await target()).toBe(fingerprint);
    expect(await runOk('sort', ['--unique', join(dir, 'ssh.hosts')])).toBe('root@build-1.example.org\n');
  });

  test('takes the name of a file for nothing but a name', async () => {
    const hostile = join(dir, `it's $(touch "$PROOF") isn't.tar`);
    await copyFile(images[0]!, hostile);
    await runOk('tar', ['--append', '--file', hostile, '--directory', dir, 'etc-marker']);
    const fingerprint = await importImage(hostile, '--host', 'root@build-1.example.org');
    expect(await target()).toBe(fingerprint);
    await expect(stat(join(dir, 'proof'))).rejects.toThrow('ENOENT');
  });

  test('refuses what it does not understand', async () => {
    const script = join(nixDir, 'incus/import');
    const wrong = [
      ...[['--nonsense'], ['--keep', '0'], ['--alias', 'a b'], ['--alias', '-a'], ['--image', '/nowhere']],
      ...[
        ['--project', 'default&recursion=1'],
        ['--project', '-p'],
        ['--host', '-oProxyCommand=true'],
      ],
    ];
    for (const args of wrong) {
      expect(await run(script, args), args.join(' ')).toMatchObject({ code: 64, stdout: '' });
    }
  });
});
