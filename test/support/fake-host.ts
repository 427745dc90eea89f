import type { IncusHost } from '../../controller/api/incushost.ts';
import { Inventory } from '../../controller/incus/inventory.ts';
import type { CommandOutcome } from '../../controller/incus/outcome.ts';

/** Stands in for hosts/host.ts in tests of the pool: no connection, and in whatever state the test puts it. */
export class FakeHost {
  readonly name: string;
  readonly inventory = new Inventory();
  spec: IncusHost['spec'];
  state: { kind: 'up' | 'down' } = { kind: 'up' };
  closed = false;
  /** What becomes of its commands. */
  outcome: CommandOutcome = { kind: 'done' };

  constructor({ name, spec }: { name: string; spec: IncusHost['spec'] }) {
    this.name = name;
    this.spec = spec;
  }

  /** As the real one: another project needs another connection. */
  update(spec: IncusHost['spec']): boolean {
    if (spec.project !== this.spec.project) return false;
    this.spec = spec;
    return true;
  }

  perform() {
    return Promise.resolve(this.outcome);
  }

  close() {
    this.closed = true;
    return Promise.resolve();
  }

  /** An instance that somebody made there. */
  has(name: string, controller = 'us') {
    this.inventory.put(name, {
      name,
      type: 'container',
      status: 'Running',
      config: {
        'user.cijob.controller': controller,
        'user.cijob.uid': `uid of ${name}`,
        'user.cijob.namespace': 'ci',
        'user.cijob.name': `job of ${name}`,
      },
      devices: {},
      profiles: [],
      last_used_at: '2026-01-01T00:00:00Z',
    });
  }
}
