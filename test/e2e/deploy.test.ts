import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseAllDocuments } from 'yaml';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { runOk } from '../support/command.ts';
import { clearAway } from '../support/left-under.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { startBench, type Bench } from './support/bench.ts';
import { manifest } from './support/cluster.ts';
import { Installed, installFile } from './support/installed.ts';

/* `deploy/`, applied for real, and the controller with its rights and no others. */

const deploy = join(import.meta.dirname, '../../deploy');
let bench: Bench;
let installed: Installed;

beforeAll(async () => {
  bench = await startBench({ controlPlane: true });
  installed = await Installed.start(bench);
});
afterAll(async () => {
  await installed.stop();
  await bench.stop();
});

const kubectl = (...args: string[]) => bench.controlPlane.kubectl(args);

describe('the manifests', () => {
  test('are current: run deploy/render', async () => {
    const dir = await makeTempDir('render');
    try {
      await runOk(join(deploy, 'render'), [dir], { env: { KUBECTL: bench.controlPlane.binaries.kubectl } });
      for (const file of ['install.yaml', 'base/crds.yaml']) {
        expect(await readFile(join(deploy, file), 'utf8')).toBe(await readFile(join(dir, file), 'utf8'));
      }
    } finally {
      await clearAway(dir);
    }
  });

  test('apply a second time without a difference', async () => {
    expect(await kubectl('diff', '--server-side', '-f', installFile)).toMatchObject({ code: 0, stdout: '' });
    const versions = ['get', '-f', installFile, '-o', 'jsonpath={.items[*].metadata.resourceVersion}'];
    const before = await bench.controlPlane.kubectlOk(versions);
    await bench.controlPlane.kubectlOk(['apply', '--server-side', '-f', installFile]);
    expect(await bench.controlPlane.kubectlOk(versions)).toBe(before);
  });

  test('apply server-side over an installation that was made client-side', async () => {
    const image = async () =>
      bench.controlPlane.kubectlOk([
        ...['get', 'deployment', 'cijob-controller', '-n', 'cijob-system'],
        ...['-o', 'jsonpath={.spec.template.spec.containers[0].image}'],
      ]);
    const current = await readFile(installFile, 'utf8');
    const earlier = current.replace('image: cijob-controller:0.1.0', 'image: cijob-controller:0.0.9');
    await bench.controlPlane.kubectlOk(['delete', 'deployment', 'cijob-controller', '-n', 'cijob-system']);
    await bench.controlPlane.kubectlOk(['apply', '-f', '-'], { input: earlier });
    expect(await image()).toBe('cijob-controller:0.0.9');
    await bench.controlPlane.kubectlOk(['apply', '--server-side', '-f', installFile]);
    expect(await image()).toBe('cijob-controller:0.1.0');
    expect(await kubectl('diff', '--server-side', '-f', installFile)).toMatchObject({ code: 0, stdout: '' });
  });

  test.each([
    'overlays/one-replica',
    'overlays/monitored',
    'overlays/logs',
    'overlays/traces',
    'policies',
    'monitoring',
  ])('%s builds', async (path) => {
    expect(await bench.controlPlane.kubectlOk(['kustomize', join(deploy, path)])).toContain('apiVersion:');
  });

  test.each(['one-replica', 'logs', 'traces'])(
    'overlays/%s is accepted by the API server',
    async (overlay) => {
      const args = ['apply', '--server-side', '--dry-run=server', '-k', join(deploy, 'overlays', overlay)];
      expect(await bench.controlPlane.kubectlOk(args)).toContain('deployment.apps/cijob-controller');
    },
  );

  test('say of each port of the controller who may connect to it', async () => {
    const built = await bench.controlPlane.kubectlOk(['kustomize', join(deploy, 'overlays/logs')]);
    const policies = parseAllDocuments(built)
      .map(
        (one) =>
          one.toJS() as { kind: string; spec: { ingress: { from?: object[]; ports: { port: string }[] }[] } },
      )
      .filter(({ kind }) => kind === 'NetworkPolicy');
    const rules = policies.flatMap(({ spec }) => spec.ingress);
    expect(rules.flatMap(({ ports }) => ports.map(({ port }) => port)).sort()).toEqual([
      'http',
      'logs',
      'logs',
    ]);
    expect(rules.filter(({ from = [] }) => from.length === 0)).toEqual([]);
  });

  test("the controller's pod keeps to the restricted Pod Security Standard", async () => {
    const [deployment] = parseAllDocuments(await readFile(join(deploy, 'base/deployment.yaml'), 'utf8'));
    const { template } = (deployment?.toJS() as { spec: { template: { spec: object } } }).spec;
    const pod = (spec: object) => ({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'probe', namespace: 'cijob-system' },
      spec,
    });
    const create = (spec: object) =>
      bench.controlPlane.kubectl(['create', '--dry-run=server', '-f', '-'], {
        input: JSON.stringify(pod(spec)),
      });
    expect(await create(template.spec)).toMatchObject({ code: 0 });
    // The namespace does refuse what does not.
    expect((await create({ ...template.spec, hostNetwork: true })).stderr).toContain(
      'violates PodSecurity "restricted:latest"',
    );
  });

  test('hold no digest, host or secret of anybody', async () => {
    for (const file of await readdir(deploy, { recursive: true })) {
      if (!/\.(yaml|json|sh|lua)$/.test(file)) continue;
      expect(await readFile(join(deploy, file), 'utf8')).not.toMatch(/PRIVATE KEY|password:|token:/);
    }
  });
});

describe('the controller, with the rights of deploy/ alone', () => {
  test('runs a job to its end, and is refused nothing', async () => {
    await installed.apply(
      manifest('rights', { command: 'true' }),
      manifest('expires', { command: 'true', ttlSecondsAfterFinished: 0 }),
    );
    const [job] = await installed.finished('rights');
    expect(job?.status?.phase).toBe('Succeeded');
    await installed.kubectl(['wait', '--for=delete', 'cijob/expires', '--timeout=60s']);
    const events = await installed.kubectl(['get', 'events', '-o', 'jsonpath={.items[*].reason}']);
    expect(events).toContain('Succeeded');
    const log = installed.controller.log().map((line) => JSON.stringify(line));
    expect(log.filter((line) => /forbidden/i.test(line))).toEqual([]);
  });

  test('reads a job’s Secret only where cijob-secret-reader is bound to it', async () => {
    const env = [{ name: 'PASS', valueFrom: { secretKeyRef: { name: 'key', key: 'word' } } }];
    const secret = {
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name: 'key' },
      stringData: { word: 'open' },
    };
    await installed.apply(
      secret,
      manifest('secret', { command: 'test "$PASS" = open', env, infraRetryLimit: 0 }),
    );
    const until = performance.now() + 30_000;
    const told = () =>
      installed.controller.log().some((line) => JSON.stringify(line).includes('cijob-secret-reader'));
    while (!told() && performance.now() < until) await new Promise((resolve) => setTimeout(resolve, 100));
    expect(told()).toBe(true);
    await installed.kubectl([
      ...['create', 'rolebinding', 'cijob-secret-reader', '--clusterrole=cijob-secret-reader'],
      '--serviceaccount=cijob-system:cijob-controller',
    ]);
    expect((await installed.finished('secret'))[0]?.status?.phase).toBe('Succeeded');
  });

  test('holds its lease in its own namespace', async () => {
    const lease = [
      '-n',
      'cijob-system',
      'get',
      'lease',
      'cijob-controller',
      '-o',
      'jsonpath={.spec.holderIdentity}',
    ];
    expect(await bench.controlPlane.kubectlOk(lease)).not.toBe('');
  });
});

describe('who may do what', () => {
  const account = 'system:serviceaccount:cijob-system:cijob-controller';
  const users = { viewer: 'vera', editor: 'ed', admin: 'ada' };

  beforeAll(async () => {
    await bench.controlPlane.kubectlOk(['create', 'namespace', 'other']);
    for (const [role, user] of Object.entries(users)) {
      await installed.kubectl([
        'create',
        'rolebinding',
        user,
        `--clusterrole=cijob-${role}`,
        `--user=${user}`,
      ]);
    }
    await installed.kubectl([
      'create',
      'clusterrolebinding',
      'olga',
      '--clusterrole=cijob-admin',
      '--user=olga',
    ]);
  });

  /** Those of `verb resource[/subresource]` that the user may do, as the API server's own review says. */
  async function allowed(user: string, namespace: string, asked: readonly string[]): Promise<string[]> {
    const groups = user.startsWith('system:serviceaccount:') ? ['system:serviceaccounts'] : [];
    const items = asked.map((one) => {
      const [verb, path = ''] = one.split(' ');
      const [qualified = '', subresource] = path.split('/');
      const [resource, ...group] = qualified.split('.');
      const attributes = { verb, group: group.join('.'), resource, ...(subresource && { subresource }) };
      const cluster = ['incushosts', 'namespaces', 'clusterroles', 'nodes'].includes(resource ?? '');
      return {
        apiVersion: 'authorization.k8s.io/v1',
        kind: 'SubjectAccessReview',
        spec: { user, groups, resourceAttributes: { ...attributes, ...(cluster ? {} : { namespace }) } },
      };
    });
    const one = ['create', '-o', 'jsonpath={.status.allowed}{"\\n"}', '-f', '-'];
    const answer = await bench.controlPlane.kubectlOk(one, {
      input: JSON.stringify({ apiVersion: 'v1', kind: 'List', items }),
    });
    const answers = answer.trim().split('\n');
    expect(answers).toHaveLength(asked.length);
    return asked.filter((_, index) => answers[index] === 'true');
  }

  const verbs = ['get', 'list', 'watch', 'create', 'update', 'patch', 'delete', 'deletecollection'];
  const everyVerb = (resource: string) => verbs.map((verb) => `${verb} ${resource}`);
  const jobs = 'cijobs.ci.pikaci.dev';
  const hosts = 'incushosts.ci.pikaci.dev';
  const questions = [
    ...[
      jobs,
      `${jobs}/status`,
      `${jobs}/log`,
      `${jobs}/artifacts`,
      `${jobs}/shell`,
      `${jobs}/rootshell`,
      hosts,
      `${hosts}/status`,
      'secrets',
      'pods',
      'namespaces',
    ].flatMap(everyVerb),
    ...['configmaps', 'events.events.k8s.io', 'leases.coordination.k8s.io'].flatMap(everyVerb),
    ...['create pods/exec', 'create serviceaccounts/token', 'bind clusterroles.rbac.authorization.k8s.io'],
  ];
  const reads = (resource: string) => ['get', 'list', 'watch'].map((verb) => `${verb} ${resource}`);

  test('cijob-viewer reads jobs, and nothing else', async () => {
    expect(await allowed('vera', 'ci', questions)).toEqual([
      ...reads(jobs),
      ...reads(`${jobs}/status`),
      `get ${jobs}/log`,
      `get ${jobs}/artifacts`,
    ]);
    expect(await allowed('vera', 'other', questions)).toEqual([]);
  });

  test('cijob-editor writes jobs, never their status', async () => {
    expect(await allowed('ed', 'ci', questions)).toEqual([
      ...everyVerb(jobs),
      `get ${jobs}/status`,
      `get ${jobs}/log`,
      `get ${jobs}/artifacts`,
      `create ${jobs}/shell`,
    ]);
    expect(await allowed('ed', 'other', questions)).toEqual([]);
  });

  test('cijob-admin in a namespace is an editor there who may be root in guests: hosts are of no namespace', async () => {
    expect(await allowed('ada', 'ci', questions)).toEqual([
      ...everyVerb(jobs),
      `get ${jobs}/status`,
      `get ${jobs}/log`,
      `get ${jobs}/artifacts`,
      `create ${jobs}/shell`,
      `create ${jobs}/rootshell`,
    ]);
  });

  test('cijob-admin in the cluster writes hosts too', async () => {
    expect(await allowed('olga', 'other', questions)).toEqual([
      ...everyVerb(jobs),
      `get ${jobs}/status`,
      `get ${jobs}/log`,
      `get ${jobs}/artifacts`,
      `create ${jobs}/shell`,
      `create ${jobs}/rootshell`,
      ...everyVerb(hosts),
      `get ${hosts}/status`,
    ]);
  });

  test("the controller, in a namespace of jobs, can do a controller's work only", async () => {
    expect(await allowed(account, 'other', questions)).toEqual([
      ...[...reads(jobs), `patch ${jobs}`, `delete ${jobs}`, `patch ${jobs}/status`],
      ...[...reads(hosts), `patch ${hosts}/status`, ...reads('namespaces')],
      ...['create events.events.k8s.io', 'patch events.events.k8s.io'],
    ]);
  });

  test('the controller, in its own namespace, also reads Secrets by name and makes a lease', async () => {
    const here = await allowed(account, 'cijob-system', questions);
    const there = await allowed(account, 'other', questions);
    expect(here.filter((one) => !there.includes(one))).toEqual([
      'get secrets',
      'create leases.coordination.k8s.io',
    ]);
  });

  test('kubectl auth can-i says the same', async () => {
    const canI = async (user: string, verb: string) =>
      (await kubectl('auth', 'can-i', verb, jobs, '-n', 'ci', '--as', user)).stdout.trim();
    expect([await canI('vera', 'get'), await canI('vera', 'create'), await canI('ed', 'create')]).toEqual([
      'yes',
      'no',
      'yes',
    ]);
  });

  test("the cluster's own roles take ours in by the labels they look for", async () => {
    const json = async (role: string) =>
      JSON.parse(await bench.controlPlane.kubectlOk(['get', 'clusterrole', role, '-o', 'json'])) as {
        metadata: { labels?: Record<string, string> };
        aggregationRule?: { clusterRoleSelectors: { matchLabels: Record<string, string> }[] };
      };
    const takes = async (whole: string, part: string) => {
      const selectors = (await json(whole)).aggregationRule?.clusterRoleSelectors ?? [];
      const labels = (await json(part)).metadata.labels ?? {};
      return selectors.some(({ matchLabels }) =>
        Object.entries(matchLabels).every(([key, value]) => labels[key] === value),
      );
    };
    const table: Record<string, string[]> = {};
    for (const whole of ['view', 'edit', 'admin']) {
      const parts = [];
      for (const part of ['viewer', 'editor', 'admin'])
        if (await takes(whole, `cijob-${part}`)) parts.push(part);
      table[whole] = parts;
    }
    expect(table).toEqual({
      view: ['viewer'],
      edit: ['viewer', 'editor'],
      admin: ['viewer', 'editor', 'admin'],
    });
  });
});
