import { generateKeyPairSync } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { readAuditLog, auditPolicy, writesTo, type AuditEvent, type WriteQuery } from './audit-log.ts';
import { issueCertificate, makeAuthority, type KeyPair } from './certificates.ts';
import { run, runOk, type CommandOptions, type CommandResult } from './command.ts';
import { controlPlaneBinaries, type ControlPlaneBinaries } from './control-plane-binaries.ts';
import { Daemon } from './daemon.ts';
import { freePort } from './free-port.ts';
import { certificateCredentials, writeKubeconfig } from './kubeconfig.ts';
import { clearAway } from './left-under.ts';
import { makeTempDir } from './temp-dir.ts';

export interface ControlPlaneOptions {
  onProgress?: (line: string) => void;
  /** Further flags of kube-apiserver: "--min-request-timeout=10". */
  apiserverFlags?: readonly string[];
  /** etcd then writes through to the disk before it answers, as in production. Off by default: tests need no power cut. */
  fsync?: boolean;
}

type Part = 'etcd' | 'kube-apiserver';

/**
 * A real Kubernetes API: etcd and kube-apiserver on loopback, with RBAC, admission, discovery and audit as shipped.
 * There is no controller manager, scheduler or node: nobody deletes a namespace's content, collects garbage by owner
 * references, makes the `default` service account, or fills the aggregated roles `view`, `edit` and `admin`.
 */
export class ControlPlane implements AsyncDisposable {
  /** https://127.0.0.1:PORT */
  readonly server: string;
  readonly binaries: ControlPlaneBinaries;
  /** The path of a kubeconfig of a member of system:masters. */
  readonly adminKubeconfig: string;
  readonly #dir: string;
  readonly #authority: KeyPair;
  readonly #daemons: Record<Part, Daemon>;
  #issued = 0;

  private constructor(parts: {
    server: string;
    binaries: ControlPlaneBinaries;
    adminKubeconfig: string;
    dir: string;
    authority: KeyPair;
    daemons: Record<Part, Daemon>;
  }) {
    this.server = parts.server;
    this.binaries = parts.binaries;
    this.adminKubeconfig = parts.adminKubeconfig;
    this.#dir = parts.dir;
    this.#authority = parts.authority;
    this.#daemons = parts.daemons;
  }

  /** Builds what is missing, starts both parts and waits until the API server is ready. */
  static async start(options: ControlPlaneOptions = {}): Promise<ControlPlane> {
    const binaries = await controlPlaneBinaries(options);
    const dir = await makeTempDir('kube');
    try {
      const authority = await makeAuthority(dir);
      const port = await freePort();
      const server = `https://127.0.0.1:${port}`;
      const admin = { dir, name: 'admin', user: 'admin', groups: ['system:masters'] };
      const adminPair = await issueCertificate(authority, admin);
      const adminKubeconfig = join(dir, 'admin.kubeconfig');
      await writeKubeconfig(adminKubeconfig, server, authority, await certificateCredentials(adminPair));

      const { etcd, url } = await startEtcd(binaries, dir, options.fsync ?? false);
      const apiserver = await Daemon.start({
        name: 'kube-apiserver',
        file: binaries.kubeApiserver,
        args: [...(await apiserverFlags(dir, authority, port, url)), ...(options.apiserverFlags ?? [])],
        logFile: join(dir, 'kube-apiserver.log'),
        isReady: async () => {
          const ready = ['--kubeconfig', adminKubeconfig, '--request-timeout=5s', 'get', '--raw', '/readyz'];
          const answer = await run(binaries.kubectl, ready);
          if (answer.code !== 0) throw new Error(answer.stderr.trim());
          return true;
        },
      });
      const daemons = { etcd, 'kube-apiserver': apiserver };
      return new ControlPlane({ server, binaries, adminKubeconfig, dir, authority, daemons });
    } catch (error) {
      await clearAway(dir);
      throw error;
    }
  }

  /** Runs kubectl, of the server's own version, as admin unless `--kubeconfig` says otherwise. */
  kubectl(args: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
    return run(this.binaries.kubectl, args, this.#withKubeconfig(options));
  }

  /** As `kubectl`, but any end other than exit code 0 is a CommandError. Returns standard output. */
  kubectlOk(args: readonly string[], options: CommandOptions = {}): Promise<string> {
    return runOk(this.binaries.kubectl, args, this.#withKubeconfig(options));
  }

  /** The path of a new kubeconfig of a user, by client certificate. RBAC decides what the user may do. */
  async kubeconfigFor({ user, groups = [] }: { user: string; groups?: readonly string[] }): Promise<string> {
    this.#issued += 1;
    const name = `user-${this.#issued}`;
    const pair = await issueCertificate(this.#authority, { dir: this.#dir, name, user, groups });
    const file = join(this.#dir, `${name}.kubeconfig`);
    await writeKubeconfig(file, this.server, this.#authority, await certificateCredentials(pair));
    return file;
  }

  /** The path of a new kubeconfig of the admin's, with another way to the same server: "https://198.18.0.1:2222". */
  async adminKubeconfigBy(server: string): Promise<string> {
    const text = await readFile(this.adminKubeconfig, 'utf8');
    const config = JSON.parse(text) as { clusters: { cluster: Record<string, string> }[] };
    const cluster = { ...config.clusters[0]?.cluster, server, 'tls-server-name': 'localhost' };
    this.#issued += 1;
    const file = join(this.#dir, `admin-${this.#issued}.kubeconfig`);
    await writeFile(file, JSON.stringify({ ...config, clusters: [{ name: 'bench', cluster }] }), {
      mode: 0o600,
    });
    return file;
  }

  /** The path of a new kubeconfig with a token of an existing service account, valid for an hour. */
  async serviceAccountKubeconfig(namespace: string, name: string): Promise<string> {
    const token = (await this.kubectlOk(['create', 'token', name, '--namespace', namespace])).trim();
    this.#issued += 1;
    const file = join(this.#dir, `service-account-${this.#issued}.kubeconfig`);
    await writeKubeconfig(file, this.server, this.#authority, { token }, namespace);
    return file;
  }

  /** Every write the API server has answered so far, whatever its outcome. */
  async auditEvents(): Promise<AuditEvent[]> {
    return readAuditLog(join(this.#dir, 'audit.log'));
  }

  /** The writes to one object, or to all of a resource, so far. */
  async writesTo(query: WriteQuery): Promise<AuditEvent[]> {
    return writesTo(await this.auditEvents(), query);
  }

  /** The end of a part's log. */
  lastLines(part: Part, count?: number): string {
    return this.#daemons[part].lastLines(count);
  }

  /** A crash: the part is gone at once. */
  async kill9(part: Part): Promise<void> {
    await this.#daemons[part].kill9();
  }

  /** Starts a part (again) with the same data and addresses, and waits until it is ready. */
  async restart(part: Part): Promise<void> {
    await this.#daemons[part].stop();
    await this.#daemons[part].start();
  }

  /** Ends both parts and removes every trace. */
  async stop(): Promise<void> {
    // Nothing of this is kept, and an orderly end waits for open watches.
    await Promise.all(Object.values(this.#daemons).map((daemon) => daemon.kill9()));
    await clearAway(this.#dir);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  #withKubeconfig(options: CommandOptions): CommandOptions {
    // The cache of discovery stays here too: a server of another test may once have had this port.
    const own = { KUBECONFIG: this.adminKubeconfig, KUBECACHEDIR: join(this.#dir, 'kubectl-cache') };
    return { ...options, env: { ...own, ...options.env } };
  }
}

async function startEtcd(
  binaries: ControlPlaneBinaries,
  dir: string,
  fsync: boolean,
): Promise<{ etcd: Daemon; url: string }> {
  const url = `http://127.0.0.1:${await freePort()}`;
  const peers = `http://127.0.0.1:${await freePort()}`;
  const flags = {
    name: 'bench',
    'data-dir': join(dir, 'etcd'),
    'listen-client-urls': url,
    'advertise-client-urls': url,
    'listen-peer-urls': peers,
    'initial-advertise-peer-urls': peers,
    'initial-cluster': `bench=${peers}`,
    'unsafe-no-fsync': String(!fsync),
  };
  const etcd = await Daemon.start({
    name: 'etcd',
    file: binaries.etcd,
    args: Object.entries(flags).map(([name, value]) => `--${name}=${value}`),
    logFile: join(dir, 'etcd.log'),
    isReady: async () => (await fetch(`${url}/readyz`)).ok,
  });
  return { etcd, url };
}

async function apiserverFlags(
  dir: string,
  authority: KeyPair,
  port: number,
  etcd: string,
): Promise<string[]> {
  const addresses = ['127.0.0.1', 'localhost', 'kubernetes.default.svc'];
  const serving = await issueCertificate(authority, {
    dir,
    name: 'serving',
    user: 'kube-apiserver',
    addresses,
  });
  // Service account tokens are signed; the same key checks them.
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const serviceAccountKey = join(dir, 'service-account.key');
  await writeFile(serviceAccountKey, privateKey.export({ type: 'pkcs1', format: 'pem' }), { mode: 0o600 });
  const policy = join(dir, 'audit-policy.json');
  await writeFile(policy, JSON.stringify(auditPolicy));
  const flags = {
    'etcd-servers': etcd,
    'bind-address': '127.0.0.1',
    'secure-port': String(port),
    'tls-cert-file': serving.certificate,
    'tls-private-key-file': serving.key,
    'client-ca-file': authority.certificate,
    'authorization-mode': 'RBAC',
    'service-account-key-file': serviceAccountKey,
    'service-account-signing-key-file': serviceAccountKey,
    'service-account-issuer': 'https://kubernetes.default.svc',
    'service-cluster-ip-range': '10.0.0.0/24',
    // Endpoints may not be loopback addresses, and nobody here reaches the API through the `kubernetes` service.
    'endpoint-reconciler-type': 'none',
    'audit-policy-file': policy,
    'audit-log-path': join(dir, 'audit.log'),
    'cert-dir': join(dir, 'certs'),
  };
  return Object.entries(flags).map(([name, value]) => `--${name}=${value}`);
}
