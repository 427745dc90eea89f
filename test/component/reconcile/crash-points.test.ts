import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { CiJobSpec } from '../../../controller/api/cijob.ts';
import { releaseAnnotation } from '../../../controller/api/meta.ts';
import { instanceName } from '../../../controller/reconcile/names.ts';
import type { GuestScript } from '../../support/incus-sim/guest-script.ts';
import { SimBench, type BenchSpec } from '../../support/sim-bench.ts';
import { makeTempDir } from '../../support/temp-dir.ts';

/** A life of one job, and how it must end whatever happens to the controller. */
interface Scenario {
  guest: GuestScript | ((name: string) => GuestScript);
  spec?: BenchSpec;
  /** Done by the user once the command runs; `release` once it has failed and is held. */
  user?: 'cancel' | 'delete' | 'release';
  /** Phase, failure class, exit code, attempt. */
  end: string;
  /** Real starts of the command in each attempt. */
  runs: number[];
}

const first = instanceName('uid-job', 1);
const scenarios: Record<string, Scenario> = {
  success: { guest: { job: { runMs: 3, log: 'hello\n' } }, end: 'Succeeded - 0 1', runs: [1] },
  failure: { guest: { job: { runMs: 3, exitCode: 3 } }, end: 'Failed Test 3 1', runs: [1] },
  timeout: {
    guest: { job: { runMs: Infinity } },
    spec: { timeoutSeconds: 1 },
    end: 'Failed Timeout 124 1',
    runs: [1],
  },
  cancel: { guest: { job: { runMs: Infinity } }, user: 'cancel', end: 'Cancelled Cancelled - 1', runs: [1] },
  delete: { guest: { job: { runMs: Infinity } }, user: 'delete', end: 'Cancelled Cancelled - 1', runs: [1] },
  'missing image': { guest: {}, spec: { image: 'missing' }, end: 'Failed Config - 1', runs: [] },
  'lost guest, second attempt': {
    guest: (name) => ({ job: name === first ? { runMs: 3, then: 'poweroff' } : { runMs: 3 } }),
    end: 'Succeeded - 0 2',
    runs: [1, 1],
  },
  'runner that vanishes, second attempt': {
    guest: (name) => ({ job: name === first ? { runMs: 3, then: 'vanish' } : { runMs: 3 } }),
    end: 'Succeeded - 0 2',
    runs: [1, 1],
  },
  'virtual machine': {
    guest: { bootMs: 20, announcesReady: true, job: { runMs: 3, exitCode: 4 } },
    spec: { instance: CiJobSpec.shape.instance.parse({ type: 'VirtualMachine', image: 'vm-image' }) },
    end: 'Failed Test 4 1',
    runs: [1],
  },
  'environment from a Secret': {
    guest: { job: { runMs: 3 } },
    spec: { env: [{ name: 'TOKEN', valueFrom: { secretKeyRef: { name: 'token', key: 'token' } } }] },
    end: 'Succeeded - 0 1',
    runs: [1],
  },
  'ttl that is over at once': {
    guest: { job: { runMs: 3, exitCode: 3 } },
    spec: { ttlSecondsAfterFinished: 0 },
    end: 'Failed Test 3 1',
    runs: [1],
  },
  'hold, and release': {
    guest: { job: { runMs: 3, exitCode: 3 } },
    spec: { holdOnFailureSeconds: 3600 },
    user: 'release',
    end: 'Failed Test 3 1',
    runs: [1],
  },
  'queue that takes too long': {
    guest: {},
    spec: { hostSelector: { matchLabels: { no: 'such-host' } }, queueTimeoutSeconds: 1 },
    end: 'Failed Config - ',
    runs: [],
  },
};

let directory: string;
let benches = 0;
beforeAll(async () => {
  directory = await makeTempDir('cp');
});
afterAll(() => rm(directory, { recursive: true, force: true }));

/** Plays a scenario, with the controller dropped at one request, and says how it ended. */
async function play(
  { guest, spec, user }: Scenario,
  crash?: { at: number; when: 'before' | 'after' },
): Promise<{ end: string; runs: number[]; left: string[]; requests: number }> {
  benches += 1;
  const bench = await SimBench.start(join(directory, `${benches}.sock`), guest);
  try {
    bench.atRequest = (count) => {
      if (count !== crash?.at) return undefined;
      queueMicrotask(() => void bench.replaceController());
      return crash.when;
    };
    const key = bench.create('job', spec);
    const until = (holds: () => boolean) => expect.poll(holds, { timeout: 10_000, interval: 5 }).toBe(true);
    if (user === 'release') {
      await until(() => bench.api.jobs.get(key)?.status?.phase === 'Failed');
      expect(bench.sim.names()).toEqual([first]);
      bench.api.annotate(key, { [releaseAnnotation]: new Date().toISOString() });
    } else if (user) {
      await until(() => bench.sim.runs(first) === 1);
      if (user === 'cancel') bench.api.change(key, { cancel: true });
      else bench.api.delete(key, Date.now());
    }
    await bench.settled();
    await expect.poll(() => bench.sim.names(), { timeout: 10_000, interval: 5 }).toEqual([]);
    const { phase, failure, exitCode, attempt } = bench.api.history.get('uid-job')!.at(-1)!;
    return {
      end: [phase, failure?.class ?? '-', exitCode ?? '-', attempt].join(' '),
      runs: [1, 2, 3]
        .map((number) => bench.sim.runs(instanceName('uid-job', number)))
        .filter((runs) => runs > 0),
      left: bench.sim.names(),
      requests: bench.requests,
    };
  } finally {
    await bench.close();
  }
}

describe('the controller is dropped before and after every request, and another one started', () => {
  test.each(Object.entries(scenarios))('%s', { timeout: 60_000 }, async (_name, scenario) => {
    const undisturbed = await play(scenario);
    expect(undisturbed).toMatchObject({ end: scenario.end, runs: scenario.runs, left: [] });
    const points = Array.from({ length: undisturbed.requests }, (_, index) => index + 1).flatMap((at) =>
      (['before', 'after'] as const).map((when) => ({ at, when })),
    );
    // Some at a time: most of each is waiting.
    for (let next = 0; next < points.length; next += 12) {
      await Promise.all(
        points.slice(next, next + 12).map(async (point) => {
          const seen = await play(scenario, point).catch((error: unknown) => ({ error: String(error) }));
          expect(seen, `dropped ${point.when} request ${point.at}`).toMatchObject({
            end: scenario.end,
            runs: scenario.runs,
            left: [],
          });
        }),
      );
    }
  });
});
