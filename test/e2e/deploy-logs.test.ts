import { readFile } from 'node:fs/promises';
import { request } from 'node:https';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { runOk } from '../support/command.ts';
import { clearAway } from '../support/left-under.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { startBench, type Bench } from './support/bench.ts';
import { manifest } from './support/cluster.ts';
import { Installed } from './support/installed.ts';

/* deploy/components/logs: the controller with the rights of the component, and readers with the shipped roles. */

const component = join(import.meta.dirname, '../../deploy/components/logs');
let dir: string;
let bench: Bench;
let installed: Installed;

beforeAll(async () => {
  dir = await makeTempDir('logs');
  const [certificate, key] = [join(dir, 'tls.crt'), join(dir, 'tls.key')];
  await runOk('openssl', [
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '1'],
    ...['-subj', '/CN=cijob-logs', '-addext', 'subjectAltName=DNS:cijob-logs.cijob-system.svc,IP:127.0.0.1'],
    ...['-keyout', key, '-out', certificate],
  ]);
  bench = await startBench({ controlPlane: true });
  installed = await Installed.start(bench, {
    flags: [
      ...['--log-dir', join(dir, 'logs'), '--log-address', '127.0.0.1:0'],
      ...['--tls-cert', certificate, '--tls-key', key],
    ],
  });
  await bench.controlPlane.kubectlOk(['apply', '-f', join(component, 'auth-delegator.yaml')]);
  for (const name of ['reader', 'stranger']) await installed.kubectl(['create', 'serviceaccount', name]);
  await installed.kubectl([
    ...['create', 'rolebinding', 'reader', '--clusterrole=cijob-viewer', '--serviceaccount=ci:reader'],
  ]);
  await installed.apply(manifest('talks', { command: 'echo said by the job' }));
  await installed.finished('talks');
});
afterAll(async () => {
  await installed.stop();
  await bench.stop();
  await clearAway(dir);
});

/** Reads the log of the job, with the token of a service account of the namespace, or without one. */
async function readLog(account?: string): Promise<{ code: number; body: string }> {
  const port = installed.controller.log().find((line) => line['logPort'] !== undefined)?.['logPort'];
  const token = account && (await installed.kubectl(['create', 'token', account])).trim();
  const ca = await readFile(join(dir, 'tls.crt'));
  return new Promise((resolve, reject) => {
    const asked = request(
      {
        host: '127.0.0.1',
        port: Number(port),
        path: '/apis/ci.pikaci.dev/v1alpha1/namespaces/ci/cijobs/talks/log',
        ca,
        headers: token ? { authorization: `Bearer ${token}` } : {},
      },
      (response) => {
        let body = '';
        response.setEncoding('utf8');
        response.on('data', (chunk: string) => (body += chunk));
        response.on('end', () => resolve({ code: response.statusCode ?? 0, body }));
      },
    );
    asked.on('error', reject);
    asked.end();
  });
}

describe('the log of a job whose instance is gone', () => {
  test('is read by whom cijob-viewer is bound to', async () => {
    expect(await readLog('reader')).toMatchObject({
      code: 200,
      body: expect.stringContaining('said by the job') as string,
    });
  });

  test('is refused to others of the cluster, and to nobody in particular', async () => {
    expect((await readLog('stranger')).code).toBe(403);
    expect((await readLog()).code).toBe(401);
  });

  test('costs the controller no right that it has not', () => {
    // The record says of others what they were refused.
    const own = installed.controller.log().filter((line) => line['audit'] !== true);
    expect(own.filter((line) => /forbidden/i.test(JSON.stringify(line)))).toEqual([]);
  });
});
