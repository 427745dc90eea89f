import { createHash } from 'node:crypto';
import type { Config, Devices, SimInstance } from './instance.ts';

export type InstanceType = 'container' | 'virtual-machine';

export interface SimImage {
  fingerprint: string;
  type: InstanceType;
  aliases: string[];
  /** Paths in it that are symbolic links. */
  links: readonly string[];
}

export interface SimProject {
  name: string;
  config: Config;
  profiles: Map<string, { config: Config; devices: Devices }>;
  instances: Map<string, SimInstance>;
}

/** What a simulated Incus keeps on disk: it outlives a kill of incusd. */
export class Store {
  readonly images: SimImage[] = [];
  readonly projects = new Map<string, SimProject>();
  readonly pools = new Set(['default']);
  /** Of each pool, in bytes. */
  readonly poolSpace = { used: 0, total: 2 ** 40 };
  /** What the machine has. */
  readonly machine = { cpu: { total: 64 }, memory: { used: 0, total: 256 * 2 ** 30 } };

  constructor() {
    this.addProject('default');
  }

  /** Adds an image under an alias; returns its fingerprint. */
  addImage(alias: string, type: InstanceType = 'container', links: readonly string[] = []): string {
    const fingerprint = createHash('sha256').update(`${type}:${alias}`).digest('hex');
    this.images.push({ fingerprint, type, aliases: [alias], links });
    return fingerprint;
  }

  /** Adds a project with a profile `default` that has a root disk. */
  addProject(name: string, config: Config = {}): SimProject {
    const root = { path: '/', pool: 'default', type: 'disk' };
    const project: SimProject = {
      name,
      config: { 'features.images': 'false', 'features.profiles': 'true', ...config },
      profiles: new Map([['default', { config: {}, devices: { root } }]]),
      instances: new Map(),
    };
    this.projects.set(name, project);
    return project;
  }
}
