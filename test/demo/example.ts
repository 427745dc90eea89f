import { chmod, mkdir, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';

/** A CiJob of the demo, and how it should end. */
export interface Example {
  title: string;
  manifest: string;
  /** Exit code of `cijob run`. */
  exitCode: number;
}

/** What the demo's jobs mount: directories of the host. */
export interface Sources {
  /** The IncusHost allows these directories, and what lies below, and nothing else. */
  allowed: string[];
  snapshot: string;
  deps: string;
  build: string;
}

/**
 * Writes a source tree and two staged outputs below a directory. As in real life, a staged output is a link: it leads
 * from a stable name into a store of immutable builds.
 */
export async function writeSources(dir: string): Promise<Sources> {
  const workspace = join(dir, 'workspace');
  const store = join(dir, 'store');
  const snapshot = join(workspace, 'snapshot');
  const deps = join(workspace, 'deps');
  const build = join(workspace, 'build');
  await write(join(snapshot, 'README'), 'This is the source tree that is tested.\n');
  await write(join(snapshot, 'numbers.txt'), '3\n1\n2\n');
  await write(join(deps, 'lib/sorting.sh'), 'sorted() { sort -n "$1" | tr "\\n" " "; }\n');
  const built = join(store, 'q5w0z1-workspace-build');
  await write(join(built, 'bin/check-order'), checkOrder, 0o755);
  await symlink(built, build);
  return { allowed: [workspace, store], snapshot, deps, build };
}

const checkOrder = `#!/bin/sh
# A prebuilt test program.
. /staged/linux-rust/workspace-deps/lib/sorting.sh
got=$(sorted "$1")
echo "sorted: $got"
[ "$got" = "1 2 3 " ]
`;

/** Guests see the host's files as nobody's, so everybody must be able to read them, as in the Nix store. */
async function write(path: string, content: string, mode = 0o644): Promise<void> {
  for (let dir = dirname(path); ; dir = dirname(dir)) {
    if ((await mkdir(dir, { recursive: true, mode: 0o755 })) === undefined) break;
  }
  await writeFile(path, content);
  await chmod(path, mode);
}

/** The IncusHost of the demo: the Incus server on this machine whose socket is given. */
export function hostManifest(socketPath: string, project: string, { allowed }: Sources): string {
  return `apiVersion: ci.pikaci.dev/v1alpha1
kind: IncusHost
metadata: {name: this-machine}
spec:
  connection:
    local: {socketPath: ${socketPath}}
  project: ${project}
  capacity: {instances: 2}
  allowedSources:
${allowed.map((path) => `    - ${path}\n`).join('')}  allowedNamespaces: {all: true}
`;
}

/** One job that passes, one that fails, one that takes too long. */
export function examples(image: string, sources: Sources): Example[] {
  return [
    {
      title: 'a job with three mounts',
      exitCode: 0,
      manifest: manifest('tests', image, [
        'command: |',
        '  set -eu',
        '  echo "I am $(id -un) in $PWD; $GREETING"',
        '  cat README',
        '  for path in $PWD /staged/linux-rust/workspace-deps /staged/linux-rust/workspace-build; do',
        '    if touch $path/x 2>/dev/null; then echo "$path can be written"; exit 1; fi',
        '    echo "$path is read-only, as it should be"',
        '  done',
        '  for second in 1 2 3; do echo "testing, part $second of 3 …"; sleep 0.5; done',
        '  /staged/linux-rust/workspace-build/bin/check-order numbers.txt',
        'env:',
        '  - {name: GREETING, value: "it is \'fine\' to quote $anything"}',
        'mounts:',
        `  - {name: snapshot,        source: ${sources.snapshot}}`,
        `  - {name: workspace-deps,  source: ${sources.deps}}`,
        `  - {name: workspace-build, source: ${sources.build}}   # a link into a store`,
      ]),
    },
    {
      title: 'a job that fails',
      exitCode: 3,
      manifest: manifest('broken', image, ['command: echo "one test failed" >&2; exit 3']),
    },
    {
      title: 'a job that takes too long',
      exitCode: 124,
      manifest: manifest('endless', image, [
        'command: echo "this will take a while …"; sleep 600',
        'timeoutSeconds: 2',
      ]),
    },
  ];
}

function manifest(name: string, image: string, spec: string[]): string {
  return `apiVersion: ci.pikaci.dev/v1alpha1
kind: CiJob
metadata: {name: ${name}}
spec:
${spec.map((line) => `  ${line}\n`).join('')}  instance: {type: Container, image: ${image}, cpu: 1, memory: 256MiB}
`;
}
