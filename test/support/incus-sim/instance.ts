import { randomUUID } from 'node:crypto';
import type { Clock } from '../../../controller/clock.ts';
import { Guest } from './guest.ts';
import type { GuestHost } from './guest.ts';
import type { GuestScript } from './guest-script.ts';
import type { InstanceType, SimProject } from './store.ts';

export type Config = Readonly<Record<string, string>>;
export type Devices = Readonly<Record<string, Config>>;

/** What an instance is asked to be. */
export interface InstanceRequest {
  name: string;
  type: InstanceType;
  fingerprint: string;
  /** Paths in its image that are symbolic links. */
  imageLinks: readonly string[];
  profiles?: readonly string[] | null | undefined;
  config?: Config | null | undefined;
  devices?: Devices | null | undefined;
  ephemeral: boolean;
}

/** What Incus is doing to an instance; others must wait or are refused. */
export type Busy = 'create' | 'start' | 'stop' | 'restart' | 'delete';

const codes = { Running: 103, Stopped: 102, Frozen: 110, Ready: 113 } as const;

/** One simulated instance: what Incus knows of it, and the guest inside. */
export class SimInstance {
  readonly name: string;
  readonly type: InstanceType;
  readonly project: SimProject;
  readonly profiles: readonly string[];
  readonly ephemeral: boolean;
  readonly createdAt: string;
  readonly guest: Guest;
  readonly imageLinks: readonly string[];
  config: Config;
  devices: Devices;
  power: 'Running' | 'Stopped' | 'Frozen' = 'Stopped';
  /** The guest has announced that it is ready, since its last start. */
  ready = false;
  busy: Busy | undefined;
  lastUsedAt = '1970-01-01T00:00:00Z';
  /** What Incus logs of it, by file name. */
  readonly logs = new Map<string, string>();
  /** Output of recorded execs by file name. */
  readonly outputs = new Map<string, string>();

  constructor(
    request: InstanceRequest,
    project: SimProject,
    script: GuestScript,
    clock: Clock,
    host: GuestHost,
  ) {
    this.name = request.name;
    this.type = request.type;
    this.project = project;
    this.profiles = request.profiles ?? ['default'];
    this.ephemeral = request.ephemeral;
    this.imageLinks = request.imageLinks;
    this.devices = request.devices ?? {};
    this.createdAt = new Date(clock.now()).toISOString();
    const id = randomUUID();
    this.config = {
      ...request.config,
      'image.os': 'simulated',
      'volatile.base_image': request.fingerprint,
      'volatile.uuid': id,
      'volatile.uuid.generation': id,
    };
    const mounts = Object.values(this.devices).map((device) => device['path'] ?? '');
    this.guest = new Guest(script, mounts, clock, host);
  }

  /** True until the agent of a VM answers; containers have none. */
  get agentOffline(): boolean {
    return this.type === 'virtual-machine' && !this.guest.up;
  }

  /** incusd died while it was being made: it is there, but has no root file system. */
  get halfMade(): boolean {
    return (
      this.busy !== 'create' &&
      this.config['volatile.apply_template'] === undefined &&
      this.config['volatile.last_state.power'] === undefined
    );
  }

  /** Path of the instance as Incus writes it in events and operations: with its project unless that is `default`. */
  get url(): string {
    const project =
      this.project.name === 'default' ? '' : `?project=${encodeURIComponent(this.project.name)}`;
    return `/1.0/instances/${this.name}${project}`;
  }

  /** Sets config keys; undefined removes one. */
  set(keys: Readonly<Record<string, string | undefined>>): void {
    const config: Record<string, string> = {};
    for (const [key, value] of Object.entries({ ...this.config, ...keys }))
      if (value !== undefined) config[key] = value;
    this.config = config;
  }

  /** As `GET /1.0/instances/N` shows it. */
  json(): Record<string, unknown> {
    const profiles = this.profiles.map((name) => this.project.profiles.get(name));
    const status = this.#status();
    return {
      architecture: 'x86_64',
      config: this.config,
      devices: this.devices,
      ephemeral: this.ephemeral,
      profiles: this.profiles,
      stateful: false,
      description: '',
      created_at: this.createdAt,
      expanded_config: Object.assign(
        {},
        ...profiles.map((profile) => profile?.config),
        this.config,
      ) as Config,
      expanded_devices: Object.assign(
        {},
        ...profiles.map((profile) => profile?.devices),
        this.devices,
      ) as Devices,
      name: this.name,
      status,
      status_code: codes[status],
      last_used_at: this.lastUsedAt,
      location: 'none',
      type: this.type,
      project: this.project.name,
    };
  }

  /** As `GET /1.0/instances/N/state` shows it. */
  state(): Record<string, unknown> {
    const on = this.power !== 'Stopped';
    const status = this.#status();
    return {
      status,
      status_code: codes[status],
      disk: {},
      memory: {
        usage: on ? 712704 : 0,
        usage_peak: on ? 1257472 : 0,
        total: 0,
        swap_usage: 0,
        swap_usage_peak: 0,
      },
      network: on ? {} : null,
      pid: on ? 4711 : 0,
      processes: !on ? 0 : this.agentOffline ? -1 : 2,
      cpu: { usage: 0, allocated_time: 0 },
      started_at: on ? this.lastUsedAt : '0001-01-01T00:00:00Z',
      os_info: null,
    };
  }

  #status(): keyof typeof codes {
    return this.power === 'Running' && this.ready ? 'Ready' : this.power;
  }
}
