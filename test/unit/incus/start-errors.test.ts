import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { shortened, startErrors } from '../../../controller/incus/start-errors.ts';

const rootfs = '/usr/lib/x86_64-linux-gnu/lxc/rootfs';
/** As the real ones, but for what comes first. */
const lxcLog = (...causes: string[]) =>
  [
    'WARN     cgfsng - ../src/lxc/cgroups/cgfsng.c:fchowmodat:1619 - No such file or directory - Failed to fchownat(34, memory.reclaim)',
    ...causes.map((cause) => `ERROR    ${cause}`),
    'ERROR    conf - ../src/lxc/conf.c:lxc_setup:4419 - Failed to setup mount entries',
    'ERROR    start - ../src/lxc/start.c:do_start:1272 - Failed to setup container "one"',
    'ERROR    sync - ../src/lxc/sync.c:sync_wait:34 - An error occurred in another process (expected sequence number 3)',
    'ERROR    start - ../src/lxc/start.c:__lxc_start:2107 - Failed to spawn container "one"',
  ]
    .map((line) => `lxc one 20261130154129.581 ${line}\n`)
    .concat(
      'lxc 20261130154129.638 ERROR    commands - ../src/lxc/commands.c:lxc_cmd_rsp_recv_fds:128 - Failed to receive file descriptors for command "get_state"\n',
    )
    .join('');

describe("what a container's log says of a start that failed", () => {
  test.each([
    [
      `utils - ../src/lxc/utils.c:open_without_symlink:1084 - Too many levels of symbolic links - link in ${rootfs}/srv/link/x was a symbolic link!`,
      `Too many levels of symbolic links - link in ${rootfs}/srv/link/x was a symbolic link!`,
    ],
    [
      `utils - ../src/lxc/utils.c:mkdir_p:236 - Read-only file system - Failed to create directory "${rootfs}/workspace/snapshot/sub"`,
      `Read-only file system - Failed to create directory "${rootfs}/workspace/snapshot/sub"`,
    ],
    [
      'start - ../src/lxc/start.c:start:2197 - No such file or directory - Failed to exec "/sbin/init"',
      'No such file or directory - Failed to exec "/sbin/init"',
    ],
  ])('is its first error, and not what follows from it: %s', (line, what) => {
    expect(startErrors('container', lxcLog(line))).toEqual([what]);
  });

  test('is two errors at most', () => {
    const causes = [1, 2, 3].map((number) => `conf - ../src/lxc/conf.c:f:${number} - cause ${number}`);
    expect(startErrors('container', lxcLog(...causes))).toEqual(['cause 1', 'cause 2']);
  });

  test('is nothing where it holds warnings only, and commands to a container that is gone', () => {
    const [warning = ''] = lxcLog().split('\n');
    const late = 'lxc 20261130154129.638 ERROR    af_unix - ../src/lxc/af_unix.c:f:218 - Connection reset';
    for (const log of ['', warning, late, 'anything else\n'])
      expect(startErrors('container', log)).toEqual([]);
  });
});

test("a virtual machine's log ends with what went wrong", () => {
  const log = 'started\n\nqemu-system-x86_64: -device a: no\nqemu-system-x86_64: b\nthe end\n\n';
  expect(startErrors('virtual-machine', log)).toEqual([
    'qemu-system-x86_64: -device a: no',
    'qemu-system-x86_64: b',
    'the end',
  ]);
});

test('a long error keeps its beginning and its end, where QEMU says what went wrong', () => {
  const error = `Failed to run: forklimits ${'-device x '.repeat(200)}: could not open /dev/kvm: exit status 1`;
  expect(shortened(error, 300)).toMatch(
    /^Failed to run: forklimits .* … .*could not open \/dev\/kvm: exit status 1$/,
  );
  fc.assert(
    fc.property(fc.string({ maxLength: 500 }), fc.integer({ min: 10, max: 400 }), (text, most) => {
      expect(shortened(text, most).length).toBe(Math.min(text.length, most));
    }),
  );
});
