import { existsSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CommandError, run, runOk } from './command.ts';

export interface EnsurePackagesOptions {
  /** What the packages are wanted for, as the end of a sentence: "to run …". */
  reason: string;
  onProgress?: (line: string) => void;
}

const policyHelper = '/usr/sbin/policy-rc.d';
const archiveKeyring = '/usr/share/keyrings/debian-archive-keyring.gpg';

/**
 * Installs those of the Debian packages that are missing, and says which and why. Nothing of the machine's apt
 * configuration changes: where a package is only in the backports suite (Incus on Debian 12), that suite is added for
 * this one installation, from the mirror the machine already uses. Services of the packages are not started.
 *
 * Throws an Error that says what to install by hand when this is not Debian, or not root.
 */
export async function ensurePackages(
  names: readonly string[],
  { reason, onProgress = () => undefined }: EnsurePackagesOptions,
): Promise<void> {
  const missing = await missingPackages([...new Set(names)]);
  if (missing.length === 0) return;
  const os = await osRelease();
  const release = os['VERSION_CODENAME'] ?? 'stable';
  const refusal = whyNotInstallable(missing, reason, os, process.getuid?.() === 0);
  if (refusal !== undefined) throw new Error(refusal);
  onProgress(`installing ${missing.join(', ')} ${reason}`);
  const started = performance.now();
  await withTemporarySources(async (apt) => {
    const update = () => aptGet(apt, ['update'], onProgress);
    const install = () =>
      aptGet(apt, ['install', '--yes', '--no-install-recommends', '--no-upgrade', ...missing], onProgress);
    const listed = (await unavailable(apt, missing)).length === 0;
    if (!listed) await update();
    const backported = await unavailable(apt, missing);
    if (backported.length > 0) {
      const suite = `${release}-backports`;
      onProgress(`${backported.join(', ')} are not in this release: looking in ${suite}`);
      await apt.addSuite(suite, release);
      await update();
    }
    await withServicesHeldBack(async () => {
      try {
        await install();
      } catch (error) {
        // Old lists name files that the mirror has no more.
        if (!listed) throw error;
        await update();
        await install();
      }
    });
  });
  const stillMissing = await missingPackages(missing);
  if (stillMissing.length > 0) {
    throw new Error(
      `apt-get installed no ${stillMissing.join(', ')}, needed ${reason}, and yet did not fail`,
    );
  }
  onProgress(`installed ${missing.join(', ')} in ${((performance.now() - started) / 1000).toFixed(0)} s`);
}

/**
 * What to tell people on whose machine the packages cannot be installed, or undefined where they can.
 *
 * @param os the variables of os-release(5)
 */
export function whyNotInstallable(
  missing: readonly string[],
  reason: string,
  os: Readonly<Record<string, string>>,
  isRoot: boolean,
): string | undefined {
  if (os['ID'] !== 'debian' && os['ID_LIKE']?.split(' ').includes('debian') !== true) {
    return (
      `These Debian packages are needed ${reason}: ${missing.join(', ')}. ` +
      `This machine is not Debian but ${os['PRETTY_NAME'] ?? 'unknown'}: run this on a Debian 12 (or newer) machine.`
    );
  }
  if (!isRoot) {
    return (
      `These packages are needed ${reason}: ${missing.join(', ')}. Run this as root, which installs them, or install ` +
      `them by hand: apt-get install --no-install-recommends ${missing.join(' ')} ` +
      `(those your release has not are in its suite ${os['VERSION_CODENAME'] ?? 'stable'}-backports)`
    );
  }
  return undefined;
}

/** Those of the packages that dpkg does not hold as fully installed; all of them where there is no dpkg. */
async function missingPackages(names: readonly string[]): Promise<string[]> {
  // dpkg-query exits with 1 when it does not know a name, and still lists the others.
  const { stdout } = await run(
    'dpkg-query',
    ['--show', '--showformat=${Package} ${db:Status-Status}\n', ...names],
    {
      env: { LC_ALL: 'C' },
    },
  ).catch(() => ({ stdout: '' }));
  const installed = new Set(stdout.split('\n').map((line) => line.trim()));
  return names.filter((name) => !installed.has(`${name} installed`));
}

async function osRelease(): Promise<Record<string, string>> {
  const text = await readFile('/etc/os-release', 'utf8').catch(() => '');
  return Object.fromEntries(
    [...text.matchAll(/^([A-Z_]+)=(?:"(.*)"|(.*))$/gm)].map((m) => [m[1] ?? '', m[2] ?? m[3] ?? '']),
  );
}

interface Apt {
  /** Options for every apt command, that make it see the machine's sources and ours. */
  options: readonly string[];
  addSuite(suite: string, like: string): Promise<void>;
}

/** A directory of apt sources that holds links to the machine's own, for the time of `use` only. */
async function withTemporarySources(use: (apt: Apt) => Promise<void>): Promise<void> {
  const own = '/etc/apt/sources.list.d';
  const parts = await mkdtemp(join(tmpdir(), 'cijob-apt-'));
  const options = ['-o', `Dir::Etc::sourceparts=${parts}`];
  try {
    for (const name of await readdir(own).catch(() => [])) await symlink(join(own, name), join(parts, name));
    await use({
      options,
      addSuite: async (suite, like) => {
        const sources = await configuredSources(options);
        if (sources.has(suite)) return;
        const mirror = sources.get(like);
        if (mirror === undefined) {
          throw new Error(
            `apt has no source for ${like} main, so its mirror is unknown: see /etc/apt/sources.list and sources.list.d`,
          );
        }
        const signedBy = existsSync(archiveKeyring) ? `[signed-by=${archiveKeyring}] ` : '';
        await writeFile(join(parts, `${suite}.list`), `deb ${signedBy}${mirror} ${suite} main\n`);
      },
    });
  } finally {
    await rm(parts, { recursive: true, force: true });
  }
}

/**
 * The mirror of each suite whose component `main` this machine is set up for. apt itself reads its configuration, in
 * whichever of its formats.
 */
async function configuredSources(options: readonly string[]): Promise<Map<string, string>> {
  const format = '$(RELEASE)\t$(COMPONENT)\t$(REPO_URI)';
  const what = ['indextargets', '--no-release-info', '--format', format, 'Created-By: Packages'];
  const rows = (await runOk('apt-get', [...options, ...what])).split('\n').map((line) => line.split('\t'));
  return new Map(
    rows.flatMap(([suite, component, mirror]) =>
      suite && mirror && component === 'main' ? [[suite, mirror] as const] : [],
    ),
  );
}

/** Those of the packages of which apt knows no version it could install. */
async function unavailable(apt: Apt, names: readonly string[]): Promise<string[]> {
  const policy = await runOk('apt-cache', [...apt.options, 'policy', ...names], { env: { LC_ALL: 'C' } });
  const available = [...policy.matchAll(/^(\S+):\n {2}Installed: .*\n {2}Candidate: (?!\(none\))/gm)].map(
    (m) => m[1],
  );
  return names.filter((name) => !available.includes(name));
}

/** Runs apt-get, waiting for its locks, and shows its last lines if it fails. */
async function aptGet(apt: Apt, args: readonly string[], onProgress: (line: string) => void): Promise<void> {
  // List-Cleanup would drop the lists of every suite that this call does not name.
  const always = ['-q', '-o', 'APT::Get::List-Cleanup=false', '-o', 'DPkg::Lock::Timeout=300'];
  // apt-get update does not wait for another one; our own calls, at least, wait for each other.
  const locked = ['--timeout', '300', '/run/lock/cijob-apt', 'apt-get', ...always, ...apt.options, ...args];
  const result = await run('flock', locked, {
    env: { DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C' },
    timeoutMs: 15 * 60_000,
    onLine: (line) => {
      if (/^(Unpacking|E:|W:)/.test(line)) onProgress(`  ${line}`);
    },
  });
  if (result.code !== 0) throw new CommandError('apt-get', args, result);
}

/**
 * Debian starts a package's service when it is installed; we want the programs only. policy-rc.d is Debian's own switch
 * for that. A machine that has one (as container images do) keeps it. Ours undoes itself once this process is gone, should
 * it be killed half-way.
 */
async function withServicesHeldBack(work: () => Promise<void>): Promise<void> {
  if (existsSync(policyHelper)) {
    await work();
    return;
  }
  const script = `#!/bin/sh\nkill -0 ${process.pid} && exit 101\nrm -f "$0"\nexit 104\n`;
  await writeFile(policyHelper, script, { mode: 0o755 });
  try {
    await work();
  } finally {
    await rm(policyHelper, { force: true });
  }
}
