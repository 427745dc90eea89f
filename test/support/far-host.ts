import { CiJobSpec } from '../../controller/api/cijob.ts';
import { IncusHostSpec, type IncusHost, type SshConnection } from '../../controller/api/incushost.ts';
import { hostResource } from '../../controller/cli/local-host.ts';
import type { LiveLogs } from '../../controller/hosts/live-logs.ts';
import { Standalone } from '../../controller/cli/standalone.ts';
import type { CiJob } from '../../controller/api/cijob.ts';
import { FaultProxy } from './fault-proxy.ts';
import type { GuestScript } from './incus-sim/guest-script.ts';
import { IncusSim } from './incus-sim/sim.ts';
import { SshSim } from './ssh-sim.ts';

const image = 'pikaci/dev';

/** A simulated Incus behind sshd behind a network that can be disturbed. */
export class FarHost implements AsyncDisposable {
  readonly incus: IncusSim;
  readonly machine: SshSim;
  readonly network: FaultProxy;
  /** How its IncusHost differs from the defaults. */
  readonly ssh: Partial<SshConnection>;

  private constructor(incus: IncusSim, machine: SshSim, network: FaultProxy, ssh: Partial<SshConnection>) {
    this.ssh = ssh;
    this.incus = incus;
    this.machine = machine;
    this.network = network;
  }

  static async start(
    guest: GuestScript | ((instance: string) => GuestScript) = {},
    ssh: Partial<SshConnection> = {},
  ): Promise<FarHost> {
    const incus = new IncusSim({ guest });
    incus.store.addImage(image);
    const machine = await SshSim.start(incus);
    return new FarHost(incus, machine, await FaultProxy.start({ port: machine.port }), ssh);
  }

  /** The IncusHost that leads there through the network, with the label `reach=far`. */
  get resource(): IncusHost {
    const { machine, network } = this;
    return hostResource(
      'far',
      IncusHostSpec.parse({
        connection: {
          ssh: {
            address: '127.0.0.1',
            port: network.port,
            user: 'cijob',
            privateKeySecretRef: { name: 'key', key: 'key' },
            hostKeys: [machine.hostKey],
            socketPath: machine.socketPath,
            ...this.ssh,
          },
        },
        capacity: { instances: 8 },
        allowedNamespaces: { all: true },
      }),
      { reach: 'far' },
    );
  }

  /** The reconcile code over jobs in memory, connected to this host. */
  async reconciler(logs?: LiveLogs): Promise<Reconciling> {
    const reconciling = new Reconciling(this, logs);
    await reconciling.standalone.connect();
    return reconciling;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.network.close();
    await this.machine.close();
    this.incus.close();
  }
}

/** Jobs on a {@link FarHost}. */
export class Reconciling implements AsyncDisposable {
  readonly standalone: Standalone;
  /** How often something about a host was said. */
  readonly said: string[] = [];

  constructor(host: FarHost, logs?: LiveLogs) {
    const privateKey = Buffer.from(host.machine.privateKey).toString('base64');
    const secret = {
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name: 'key' },
      data: { key: privateKey },
    } as const;
    this.standalone = new Standalone({
      input: { hosts: [host.resource], secrets: [secret] },
      logs,
      observer: { status: () => undefined, command: () => undefined },
      onJob: () => undefined,
      say: (line) => this.said.push(line),
    });
  }

  create(name: string, namespace = 'default'): void {
    const spec = CiJobSpec.parse({ command: 'true', instance: { type: 'Container', image } });
    this.standalone.store.create({ metadata: { name, namespace }, spec }, Date.now());
  }

  job(name: string, namespace = 'default'): CiJob | undefined {
    return this.standalone.store.get(`${namespace}/${name}`);
  }

  /** Whether a job has come to its end, and nothing of it is left. */
  over(name: string, namespace?: string): boolean {
    const job = this.job(name, namespace);
    return job?.status?.completionTime !== undefined && (job.metadata.finalizers ?? []).length === 0;
  }

  get up(): boolean {
    return this.standalone.pool.state('far')?.kind === 'up';
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.standalone.close();
  }
}
