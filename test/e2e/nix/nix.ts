import { join } from 'node:path';
import { runOk } from '../../support/command.ts';

/** The Debian packages these tests need, beyond what the end-to-end suite installs for all. */
export const nixPackages = ['nix-bin'];

/** The project's `nix` directory. */
export const nixDir = join(import.meta.dirname, '../../../nix');
const standIn = join(import.meta.dirname, 'stand-in.nix');

/** Everything Nix would keep below / goes into a directory of the test's. */
function environment(dir: string): Record<string, string> {
  return {
    NIX_STORE_DIR: join(dir, 'store'),
    NIX_STATE_DIR: join(dir, 'state'),
    NIX_LOG_DIR: join(dir, 'log'),
    NIX_CONF_DIR: join(dir, 'conf'),
    NIX_REMOTE: 'local',
    // Debian's Nix has no group of build users; nothing is built here.
    NIX_CONFIG: 'build-users-group =',
    HOME: dir,
  };
}

/** The value of a Nix expression in which `lib`, `pkgs`, `callPackage` and `evaluateModule` stand in for nixpkgs. */
export async function evaluate(dir: string, expression: string): Promise<unknown> {
  const text = `with import ${standIn}; ${expression}`;
  // Otherwise `builtins.toFile` names files that it does not write.
  const mode = ['--eval', '--strict', '--json', '--read-write-mode'];
  const out = await runOk('nix-instantiate', [...mode, '--expr', text], { env: environment(dir) });
  return JSON.parse(out);
}

/** Refuses a file that is not Nix. */
export async function parse(dir: string, file: string): Promise<void> {
  await runOk('nix-instantiate', ['--parse', file], { env: environment(dir) });
}
