import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { IncusHostSpec } from '../../controller/api/incushost.ts';
import { hostResource } from '../../controller/cli/local-host.ts';
import { FarRun } from '../support/far-run.ts';
import { IncusSim } from '../support/incus-sim/sim.ts';
import { clearAway } from '../support/left-under.ts';
import { makeTempDir } from '../support/temp-dir.ts';

/* `cijob run` as a process whose host goes away. It waits, says so, and always ends. */

let run: FarRun;
beforeEach(async () => {
  run = await FarRun.prepare();
});
afterEach(async () => {
  await run[Symbol.asyncDispose]();
});

describe('a connection that is lost', () => {
  test('is made again: said once, and the job goes on', async () => {
    const job = Promise.withResolvers<undefined>();
    run.script = { until: job.promise, log: 'here\n', exitCode: 3 };
    const { ended, says, said } = await run.start();
    await says('stdout', 'here');
    run.host.network.faults.refuse = true;
    run.host.network.reset();
    await says('stderr', 'connection lost');
    // Several tries fail.
    await new Promise((resolve) => setTimeout(resolve, 2_500));
    run.host.network.faults.refuse = false;
    await says('stderr', 'connected again');
    job.resolve(undefined);
    expect((await ended).code).toBe(3);
    expect(said.stdout).toBe('here\n');
    expect(said.stderr.match(/^host far: .*$/gm)).toEqual([
      expect.stringMatching(/^host far: connection lost \(.+\); trying again until \d\d:\d\d:\d\d$/),
      expect.stringMatching(/^host far: connected again, after \d+\.\ds$/),
    ]);
    expect(run.host.incus.lives.map(({ counts }) => counts.runs)).toEqual([1]);
    expect(run.host.incus.names()).toEqual([]);
  });

  test.each(['Provisioning', 'Running', 'Collecting'] as const)(
    'for good, at %s, ends it with 70, and it says what may be left',
    { timeout: 60_000 },
    async (phase) => {
      run.script = { runMs: phase === 'Collecting' ? 500 : Infinity, log: 'here\n' };
      if (phase === 'Collecting') run.host.incus.faults.on({ path: /\/files$/ }, { kind: 'hang' }, 10);
      const { ended, says, said } = await run.start({ flags: ['--host-grace-seconds', '2'] });
      await says('stderr', ` ${phase}`);
      run.host.network.faults.refuse = true;
      run.host.network.reset();
      expect(await ended).toEqual({ code: 70, signal: null });
      expect(said.stderr).toMatch(/Failed +Infrastructure: HostLost: /);
      expect(said.stderr).toMatch(/^host far: given up, after \d+\.\ds out of reach$/m);
      expect(said.stderr).toMatch(/^instance cijob-\w+ may be left on host far/m);
    },
  );

  test('to the only host that may take the job ends it with 70, although another one is in reach', async () => {
    const dir = await makeTempDir('near');
    const near = new IncusSim();
    try {
      const socketPath = join(dir, 'incus');
      await near.listen(socketPath);
      const spec = IncusHostSpec.parse({
        connection: { local: { socketPath } },
        capacity: { instances: 8 },
        allowedNamespaces: { all: true },
      });
      run.others = [hostResource('near', spec, { reach: 'near' })];
      run.spec = { hostSelector: { matchLabels: { reach: 'far' } } };
      const { ended, says, said } = await run.start({ flags: ['--host-grace-seconds', '2'] });
      await says('stdout', 'here');
      run.host.network.faults.refuse = true;
      run.host.network.reset();
      expect(await ended).toEqual({ code: 70, signal: null });
      expect(said.stderr).toMatch(/Failed +Infrastructure: HostLost: /);
      expect(said.stderr).toMatch(/^instance cijob-\w+ may be left on host far/m);
    } finally {
      near.close();
      await clearAway(dir);
    }
  });

  test('before the instance is taken away leaves the outcome as it is', async () => {
    run.script = { runMs: 500, log: 'here\n', exitCode: 3 };
    run.host.incus.faults.on({ method: 'PUT' }, { kind: 'hang' });
    const { ended, says, said } = await run.start({ flags: ['--host-grace-seconds', '2'] });
    await says('stderr', ' Failed');
    run.host.network.faults.refuse = true;
    run.host.network.reset();
    expect(await ended).toEqual({ code: 3, signal: null });
    expect(said.stderr).toMatch(/^instance cijob-\w+ may be left on host far/m);
  });

  test('would not end it without a word if nothing kept it alive', async () => {
    // What the clock's timers once were.
    const careless = 'const set = setTimeout; globalThis.setTimeout = (...all) => set(...all).unref();';
    const { ended, says, said } = await run.start({ node: ['--import', `data:text/javascript,${careless}`] });
    await says('stdout', 'here');
    run.host.network.faults.refuse = true;
    run.host.network.reset();
    expect(await ended).toEqual({ code: 70, signal: null });
    expect(said.stderr).toContain(
      'cijob: run waits for something that can no longer happen; please report this',
    );
  });

  test('does not keep whoever presses Ctrl-C', { timeout: 60_000 }, async () => {
    const { child, ended, says, said } = await run.start();
    await says('stdout', 'here');
    run.host.network.faults.refuse = true;
    run.host.network.reset();
    await says('stderr', 'connection lost');
    child.kill('SIGINT');
    expect(await ended).toEqual({ code: 130, signal: null });
    expect(said.stderr).toMatch(/^instance cijob-\w+ may be left on host far/m);
  });

  test('in silence, while it is made, ends it with 70', { timeout: 60_000 }, async () => {
    run.host.network.faults.blackHole = true;
    const { ended, said } = await run.start();
    expect(await ended).toEqual({ code: 70, signal: null });
    expect(said.stderr).toMatch(/^cijob: host far: /);
  });
});
