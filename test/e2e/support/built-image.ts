import { existsSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run, runOk, type CommandResult } from '../../support/command.ts';
import { ensurePackages } from '../../support/debian-packages.ts';
import { clearAway } from '../../support/left-under.ts';
import { makeTempDir } from '../../support/temp-dir.ts';

/** What an image says of how it is to be run (the image configuration of OCI). */
export interface ImageConfig {
  User: string;
  Env: string[];
  Entrypoint: string[];
  Cmd: string[];
  WorkingDir: string;
  ExposedPorts: Record<string, object>;
}

export interface EnterOptions {
  /** Added to the environment that the image names. */
  env?: Readonly<Record<string, string>>;
  /** A directory of this machine, and where it is mounted in the image. */
  mount?: { source: string; path: string };
}

/** Mount points are made first, as a container runtime does. Then nobody can write to the image. */
const enter = `
root=$1 source=$2 path=$3
shift 3
mount --bind "$root" "$root"
[ -z "$source" ] || { mkdir -p "$root$path" && mount --bind "$source" "$root$path"; }
mount -o remount,bind,ro "$root"
exec env -i "$@"`;

/** What buildah keeps for itself of the images it has seen; it takes no other place for that. */
const buildahsOwn = '/var/lib/containers';

/** The controller's image, built by `deploy/image/build`, with buildah's storage in a directory of its own. */
export class BuiltImage implements AsyncDisposable {
  readonly config: ImageConfig;
  /** The image's files. */
  readonly root: string;
  readonly #stack: AsyncDisposableStack;

  private constructor(config: ImageConfig, root: string, stack: AsyncDisposableStack) {
    this.config = config;
    this.root = root;
    this.#stack = stack;
  }

  static async build(tag: string): Promise<BuiltImage> {
    await ensurePackages(['buildah'], { reason: "to build the controller's image" });
    await using stack = new AsyncDisposableStack();
    if (!existsSync(buildahsOwn)) stack.defer(() => rm(buildahsOwn, { recursive: true, force: true }));
    const dir = await makeTempDir('image');
    stack.defer(() => clearAway(dir));
    const storage = join(dir, 'storage.conf');
    const settings = { driver: 'vfs', graphroot: join(dir, 'images'), runroot: join(dir, 'run') };
    const lines = Object.entries(settings).map(([name, value]) => `${name} = "${value}"`);
    await writeFile(storage, ['[storage]', ...lines, ''].join('\n'));
    const env = { CONTAINERS_STORAGE_CONF: storage, TMPDIR: dir, npm_config_prefer_offline: 'true' };
    const script = join(import.meta.dirname, '../../../deploy/image/build');
    await runOk(script, [tag], { env, timeoutMs: 240_000 });
    const inspected = await runOk('buildah', ['inspect', '--type', 'image', tag], { env });
    const { OCIv1 } = JSON.parse(inspected) as { OCIv1: { config: ImageConfig } };
    const container = (await runOk('buildah', ['from', '--pull-never', tag], { env })).trim();
    const root = (await runOk('buildah', ['mount', container], { env })).trim();
    return new BuiltImage(OCIv1.config, root, stack.move());
  }

  /** The words that run a program of the image as a pod does: its user, its environment, no way to write. */
  command(program: readonly string[], { env = {}, mount }: EnterOptions = {}): [string, ...string[]] {
    const { User, Env, WorkingDir } = this.config;
    const [uid = '', gid = ''] = User.split(':');
    const variables = [...Env, ...Object.entries(env).map(([name, value]) => `${name}=${value}`)];
    const as = ['--setuid', uid, '--setgid', gid, `--root=${this.root}`, `--wd=${WorkingDir}`];
    return [
      ...(['unshare', '--mount', 'sh', '-ec', enter, 'enter'] as const),
      ...[this.root, mount?.source ?? '', mount?.path ?? ''],
      ...[...variables, '/usr/bin/unshare', ...as, '--', ...program],
    ];
  }

  /** Runs a program of the image to its end. */
  run(...program: string[]): Promise<CommandResult> {
    const [file, ...args] = this.command(program);
    return run(file, args);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
  }
}
