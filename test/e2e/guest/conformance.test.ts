import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { run } from '../../support/command.ts';
import { startBench, type Bench } from '../support/bench.ts';
import { guestAliases } from '../support/shared-incus.ts';
import { Guest } from './guest.ts';

let bench: Bench;
beforeAll(async () => {
  bench = await startBench();
});
afterAll(() => bench.stop());

const script = join(import.meta.dirname, 'conformance');

const conformance = (image: string) =>
  run(script, [image, '--project', bench.host.project, '--sources', bench.host.sources], {
    env: bench.host.incus.env,
  });

/** A runner as one might write it in an afternoon. */
const naive = `#!/run/current-system/sw/bin/bash
cd /workspace/snapshot
$(type -P su) -m -s /run/current-system/sw/bin/bash pikaci -c "$PIKACI_INCUS_GUEST_COMMAND" >>/artifacts/guest.log 2>&1
code=$?
echo "{\\"exit_code\\":$code}" >/artifacts/result.json
exit $code
`;

describe('the conformance script', () => {
  test.for(Object.values(guestAliases))('finds that %s keeps the contract', async (image) => {
    const { code, stdout } = await conformance(image);
    expect(stdout).not.toContain('not ok');
    expect(stdout).toMatch(/^1\.\.\d{2}$/m);
    expect(code).toBe(0);
  });

  test('finds what another image lacks', { timeout: 240_000 }, async () => {
    const { incus, project } = bench.host;
    const image = 'conformance/naive';
    {
      await using guest = await Guest.launch(bench.host, 'busybox');
      await guest.shellOk(
        `cat >/usr/bin/pikaci-incus-run <<'END'\n${naive}END\nrm /etc/pikaci/guest-interface
        mv /etc/pikaci/guest-contract /etc/stated && ln -s /etc/stated /etc/pikaci/guest-contract`,
      );
      await incus.incusOk(['publish', guest.name, '--force', '--alias', image, '--project', project]);
    }
    try {
      const { code, stdout } = await conformance(image);
      const lacking = [...stdout.matchAll(/^not ok \d+ - (.*)$/gm)].map((match) => match[1]);
      expect(lacking).toEqual(
        expect.arrayContaining([
          'states it in a regular file',
          'states its guest interface',
          'never runs a second command',
          'stops at the time limit, ten seconds later even what ignores TERM',
          'leaves no process behind',
          'refuses a mount that is only a directory',
          'refuses a bad request',
        ]),
      );
      expect(lacking).not.toContain('hands back the exit code of the command');
      expect(code).toBe(1);
    } finally {
      await incus.incusOk(['image', 'delete', image, '--project', project]);
    }
  });
});
