import { describe, expect, test } from 'vitest';
import { CiJobSpec, type CiJob } from '../../../controller/api/cijob.ts';
import type { EndedOperation, InstanceView } from '../../../controller/incus/inventory.ts';
import {
  blankMemory,
  defaultPatience,
  type Memory,
  type Observed,
} from '../../../controller/reconcile/observed.ts';
import { instanceName } from '../../../controller/reconcile/names.ts';
import { plan } from '../../../controller/reconcile/plan.ts';

const uid = '7c3e0e6c-0000-4000-8000-000000000001';
const admittedAt = Date.parse('2026-01-01T00:00:00Z');
const timeoutSeconds = 3;
const limit = timeoutSeconds * 1000 + defaultPatience.deadlineSlack;
const yes = (type: string) => ({
  type,
  status: 'True' as const,
  reason: 'Test',
  message: '',
  observedGeneration: 1,
  lastTransitionTime: new Date(admittedAt).toISOString(),
});

/** A job whose status says, since `admittedAt`, that its runner was launched. */
const job: CiJob = {
  apiVersion: 'ci.pikaci.dev/v1alpha1',
  kind: 'CiJob',
  metadata: {
    name: 'one',
    namespace: 'ci',
    uid,
    generation: 1,
    creationTimestamp: new Date(admittedAt).toISOString(),
  },
  spec: CiJobSpec.parse({
    command: 'sleep 600',
    timeoutSeconds,
    instance: { type: 'Container', image: 'pikaci/dev' },
  }),
  status: {
    phase: 'Running',
    host: 'build-1',
    attempt: 1,
    instance: { name: instanceName(uid, 1) },
    startTime: new Date(admittedAt).toISOString(),
    conditions: ['Admitted', 'DevicesConfigured', 'Started', 'AgentReady', 'RunnerStarted'].map(yes),
  },
};

const instance: InstanceView = {
  name: instanceName(uid, 1),
  type: 'container',
  status: 'Running',
  everStarted: true,
  startedAt: admittedAt,
  announcedReady: false,
  labels: { uid, controller: 'us' },
  devices: {},
  settings: {},
  operations: new Set(),
};

function planned(now: number, memory: Partial<Memory>, runner: 'none' | 'running' | EndedOperation) {
  const observed: Observed = {
    controllerId: 'us',
    host: { kind: 'up', since: admittedAt, storagePool: 'default' },
    instance,
    runner,
    strays: [],
    unseen: [],
    admission: undefined,
    hostless: false,
    underWay: false,
    memory: { ...blankMemory(1), ...memory },
  };
  const { status, commands } = plan(job, observed, now, defaultPatience);
  return { failure: status.failure?.reason, verbs: commands.map(({ command }) => command.verb) };
}

const empty = {
  result: { kind: 'file', size: 0, bytes: Buffer.alloc(0) } as const,
  log: { kind: 'missing' } as const,
};

describe("the host's own limit", () => {
  // The controller died after it had noted the launch and before it had sent it, and its successor came late.
  const launchedAt = admittedAt + 50_000;
  const late = { operation: 'op', launches: 1, launchedAt };

  test('passes over a launch that was noted long ago and never sent: it is sent', () => {
    expect(planned(launchedAt, {}, 'none')).toEqual({ failure: undefined, verbs: ['launch'] });
  });

  test('counts from the launch that was sent, not from the one that was noted', () => {
    expect(planned(launchedAt + 1, late, 'running')).toEqual({ failure: undefined, verbs: [] });
    expect(planned(launchedAt + limit - 1, late, 'running').verbs).toEqual([]);
    expect(planned(launchedAt + limit, late, 'running').verbs).toEqual(['collect']);
  });

  test('is a Timeout once it has passed and there is no result', () => {
    const collected = { ...late, collected: empty };
    expect(planned(launchedAt + limit, collected, 'running').failure).toBe('HostDeadlineExceeded');
  });
});
