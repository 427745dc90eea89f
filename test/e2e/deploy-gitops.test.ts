import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import * as z from 'zod';
import type { CiJob } from '../../controller/api/cijob.ts';
import { runOk } from '../support/command.ts';
import { ensurePackages } from '../support/debian-packages.ts';
import { startBench, type Bench } from './support/bench.ts';
import { manifest } from './support/cluster.ts';
import { Installed } from './support/installed.ts';
import { everyOutcome, running, type Outcome } from './support/outcomes.ts';

/* What Argo CD and Flux make of real statuses; and what happens when they apply again and again: nothing. */

const gitops = join(import.meta.dirname, '../../deploy/gitops');
let bench: Bench;
let installed: Installed;
let jobs: Record<Outcome, CiJob>;

beforeAll(async () => {
  await ensurePackages(['lua5.3'], { reason: 'to run the health checks of Argo CD' });
  bench = await startBench({ controlPlane: true });
  installed = await Installed.start(bench, { slots: 8 });
  jobs = await everyOutcome(installed);
});
afterAll(async () => {
  await installed.stop();
  await bench.stop();
});

/** An object as a Lua table, as Argo CD hands it over. */
function lua(value: unknown): string {
  if (value === null || value === undefined) return 'nil';
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  if (typeof value === 'string') {
    return `"${[...Buffer.from(value)].map((byte) => `\\${String(byte).padStart(3, '0')}`).join('')}"`;
  }
  if (Array.isArray(value)) return `{${value.map(lua).join(',')}}`;
  return `{${Object.entries(value)
    .map(([key, one]) => `[${lua(key)}]=${lua(one)}`)
    .join(',')}}`;
}

/** Runs a health script as Argo CD does: with the object as `obj`, and what it returns as the health. */
async function argo(script: string, object: unknown): Promise<{ status: string; message: string }> {
  const text = await readFile(join(gitops, 'argocd', script), 'utf8');
  const program =
    `obj = ${lua(object)}\nlocal health = (function()\n${text}\nend)()\n` +
    `io.write(health.status, "\\n", health.message)`;
  const [status = '', ...message] = (await runOk('lua5.3', ['-'], { input: program })).split('\n');
  return { status, message: message.join('\n') };
}

describe('Argo CD', () => {
  test('sees the health of a job of every outcome', async () => {
    const seen: Record<string, string> = {};
    for (const [name, job] of Object.entries(jobs)) seen[name] = (await argo('cijob.lua', job)).status;
    expect(seen).toEqual({
      suspended: 'Suspended',
      running: 'Progressing',
      succeeded: 'Healthy',
      test: 'Degraded',
      timeout: 'Degraded',
      config: 'Degraded',
      cancelled: 'Degraded',
      infrastructure: 'Degraded',
    });
  });

  test('sees why', async () => {
    expect((await argo('cijob.lua', jobs.test)).message).toMatch(/^NonZeroExitCode: .*3/);
    expect((await argo('cijob.lua', jobs.timeout)).message).toMatch(/^DeadlineExceeded: /);
  });

  test('sees a job that the controller has not seen yet as progressing', async () => {
    expect((await argo('cijob.lua', { ...jobs.succeeded, status: undefined })).status).toBe('Progressing');
  });

  test('sees hosts: connected, drained, unreachable, new', async () => {
    const host = JSON.parse(await installed.kubectl(['get', 'incushost', 'build-1', '-o', 'json'])) as {
      spec: object;
      status: { conditions: { type: string }[] };
    };
    const health = async (object: object) => (await argo('incushost.lua', object)).status;
    expect(await health(host)).toBe('Healthy');
    expect(await health({ ...host, spec: { ...host.spec, unschedulable: true } })).toBe('Suspended');
    expect(await health({ ...host, status: undefined })).toBe('Progressing');
    const away = {
      ...host,
      metadata: { name: 'away' },
      spec: {
        connection: { local: { socketPath: '/nowhere/unix.socket' } },
        capacity: { instances: 1 },
        allowedNamespaces: { all: true },
      },
    };
    await installed.apply({ ...away, status: undefined });
    await installed.kubectl(['wait', '--for=condition=Stalled', 'incushost/away', '--timeout=30s']);
    const seen: unknown = JSON.parse(await installed.kubectl(['get', 'incushost', 'away', '-o', 'json']));
    expect(await health(seen as object)).toBe('Degraded');
    await installed.kubectl(['delete', 'incushost', 'away']);
  });

  test('takes the scripts in by the component, under the keys it looks for', async () => {
    const component = parse(await readFile(join(gitops, 'argocd/kustomization.yaml'), 'utf8')) as {
      configMapGenerator: { name: string; files: string[] }[];
    };
    expect(component.configMapGenerator[0]).toMatchObject({
      name: 'argocd-cm',
      files: [
        'resource.customizations.health.ci.pikaci.dev_CiJob=cijob.lua',
        'resource.customizations.health.ci.pikaci.dev_IncusHost=incushost.lua',
      ],
    });
  });
});

describe('Flux', () => {
  const Health = z.object({
    kind: z.string(),
    inProgress: z.string(),
    failed: z.string(),
    current: z.string(),
  });
  const Kustomization = z.object({ spec: z.object({ healthCheckExprs: z.array(Health) }) });

  /**
   * The API server itself evaluates the expressions: each job is the parameter of a policy that refuses a ConfigMap
   * and says the job's health. Flux asks in this order.
   */
  test('sees the health of a job of every outcome', async () => {
    const file = await readFile(join(gitops, 'flux/kustomization-with-health.yaml'), 'utf8');
    const { healthCheckExprs } = Kustomization.parse(parse(file)).spec;
    const found = healthCheckExprs.find(({ kind }) => kind === 'CiJob');
    const on = (expression = '') => `(${expression.replaceAll(/\bstatus\./g, 'params.status.')})`;
    const health = `${on(found?.inProgress)} ? 'InProgress' : ${on(found?.failed)} ? 'Failed' : ${on(found?.current)} ? 'Current' : 'InProgress'`;
    const kind = (name: string) => ({ apiVersion: 'admissionregistration.k8s.io/v1', kind: name });
    const policy = {
      ...kind('ValidatingAdmissionPolicy'),
      metadata: { name: 'health' },
      spec: {
        paramKind: { apiVersion: 'ci.pikaci.dev/v1alpha1', kind: 'CiJob' },
        matchConstraints: {
          resourceRules: [
            { apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['configmaps'] },
          ],
        },
        validations: [{ expression: 'false', messageExpression: `'health is ' + (${health})` }],
      },
    };
    const bindings = Object.keys(jobs).map((name) => ({
      ...kind('ValidatingAdmissionPolicyBinding'),
      metadata: { name: `health-${name}` },
      spec: {
        policyName: 'health',
        validationActions: ['Deny'],
        paramRef: { name, namespace: 'ci', parameterNotFoundAction: 'Deny' },
        matchResources: { objectSelector: { matchLabels: { job: name } } },
      },
    }));
    await installed.apply(policy, ...bindings);
    const ask = async (name: string) => {
      const object = {
        apiVersion: 'v1',
        kind: 'ConfigMap',
        metadata: { name: 'probe', labels: { job: name } },
      };
      const deadline = performance.now() + 30_000;
      for (;;) {
        const { stderr } = await bench.controlPlane.kubectl(
          ['-n', 'ci', 'create', '--dry-run=server', '-f', '-'],
          {
            input: JSON.stringify(object),
          },
        );
        const said = /health is (\w+)/.exec(stderr)?.[1];
        if (said !== undefined) return said;
        // The API server takes a moment to take up a policy and its parameters.
        if (performance.now() > deadline) throw new Error(`no answer for ${name}: ${stderr}`);
        await delay(200);
      }
    };
    const seen: Record<string, string> = {};
    for (const name of Object.keys(jobs)) seen[name] = await ask(name);
    expect(seen).toEqual({
      suspended: 'InProgress',
      running: 'InProgress',
      succeeded: 'Current',
      test: 'Failed',
      timeout: 'Failed',
      config: 'Failed',
      cancelled: 'Failed',
      infrastructure: 'Failed',
    });
  });
});

describe('applying the same again', () => {
  const incusRequests = () =>
    installed.controller.log().filter(({ msg }) => msg === 'request' || msg === 'command').length;
  const reconciles = async () => {
    const { body } = await installed.controller.get('/metrics');
    return Number(/^controller_runtime_reconcile_total\{.*result="success".*\} (\d+)/m.exec(body)?.[1]);
  };

  test('asks nothing of Incus, neither for what runs nor for what is over', async () => {
    const before = incusRequests();
    const same = [
      manifest('running', { command: 'sleep 600', timeoutSeconds: 900 }),
      manifest('succeeded', { command: 'true' }),
    ];
    const applied = await installed.apply(...same);
    expect(
      applied
        .trim()
        .split('\n')
        .map((line) => line.split(' ').at(-1)),
    ).toEqual(['unchanged', 'unchanged']);
    // As GitOps tools do, with labels of their own: that is a change, and the controller does look.
    const looked = await reconciles();
    await installed.kubectl(['label', 'cijob', 'running', 'succeeded', 'app.kubernetes.io/instance=ci']);
    const deadline = performance.now() + 30_000;
    while ((await reconciles()) < looked + 2 && performance.now() < deadline) await delay(100);
    expect(await reconciles()).toBeGreaterThanOrEqual(looked + 2);
    expect(incusRequests()).toBe(before);
  });
});

/* What each of them refuses and lets pass is in deploy-policies.test.ts. */
describe('the sample policies', () => {
  /** Jobs that each of the policies refuses, made before there were any. */
  const earlier = {
    'earlier-root': { command: 'sleep 600', timeoutSeconds: 900, runAsRoot: true },
    'earlier-image': { command: 'sleep 600', timeoutSeconds: 900, image: 'pikaci/systemd' },
    'earlier-long': { command: 'sleep 600', timeoutSeconds: 5 * 3600 },
  };

  beforeAll(async () => {
    await installed.apply(...Object.entries(earlier).map(([name, input]) => manifest(name, input)));
    for (const name of Object.keys(earlier)) await running(installed, name);
    await bench.controlPlane.kubectlOk(['apply', '--server-side', '-k', join(gitops, '../policies')]);
  });

  /** What the API server says against a job; nothing when it takes it. */
  async function refused(input: object): Promise<string> {
    const object = manifest('policy', { command: 'true', suspend: true, ...input });
    const { code, stderr } = await bench.controlPlane.kubectl(
      ['-n', 'ci', 'create', '--dry-run=server', '-f', '-'],
      { input: JSON.stringify(object) },
    );
    return code === 0 ? '' : stderr;
  }

  test('are in force', async () => {
    const deadline = performance.now() + 30_000;
    const spoilt = [{ runAsRoot: true }, { image: 'evil/image' }, { timeoutSeconds: 5 * 3600 }];
    const answers = () => Promise.all(spoilt.map(refused));
    while ((await answers()).includes('') && performance.now() < deadline) await delay(200);
    expect(await answers()).not.toContain('');
  });

  test('let jobs from before them be cancelled, and be deleted', async () => {
    const cancel = ['--type=merge', '-p', '{"spec":{"cancel":true}}'];
    for (const name of Object.keys(earlier)) await installed.kubectl(['patch', 'cijob', name, ...cancel]);
    const over = await installed.finished(...Object.keys(earlier));
    expect(over.map(({ status }) => status?.phase)).toEqual(['Cancelled', 'Cancelled', 'Cancelled']);
    await installed.kubectl(['delete', 'cijob', ...Object.keys(earlier), '--timeout=60s']);
  });

  test('do not stand in the way of the controller', async () => {
    await installed.kubectl(['delete', 'cijob', 'running', '--timeout=60s']);
    const left = (await installed.jobs()).map(({ metadata }) => metadata.name);
    expect(left).not.toContain('running');
  });
});
