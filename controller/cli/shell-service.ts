import type { CiJob } from '../api/cijob.ts';
import { isTrue } from '../api/conditions.ts';
import { group } from '../api/meta.ts';
import type { Host } from '../hosts/host.ts';
import { IncusError } from '../incus/errors.ts';
import type { Inventory } from '../incus/inventory.ts';
import type { Happening } from '../kube/event-recorder.ts';
import { Refusal, unavailable } from '../kube/refusal.ts';
import type { ServedShells } from '../kube/shell-server.ts';
import { isFinished } from '../reconcile/step.ts';

/** A host, as far as a shell needs one. */
export type ShellHost = Pick<Host, 'name' | 'state' | 'spec' | 'isChanging' | 'openShell'> & {
  readonly inventory: Pick<Inventory, 'get'>;
};

export interface ShellServiceOptions {
  /** By `namespace/name`. */
  job: (key: string) => CiJob | undefined;
  host: (name: string) => ShellHost | undefined;
  controllerId: string;
  /** Hears of what is worth an Event of the CiJob. */
  onOpened: (job: CiJob, happening: Happening) => void;
}

/** Shells in the guests of this installation's jobs. What is typed in them is nobody's business here. */
export function servedShells({ job, host, controllerId, onOpened }: ShellServiceOptions): ServedShells {
  const keyOf = ({ namespace, name }: { namespace: string; name: string }) => `${namespace}/${name}`;

  /** Why there is no shell in the instance of a job; undefined when there can be one. */
  function unfit(of: CiJob): Refusal | undefined {
    const { status } = of;
    const machine = host(status?.host ?? '');
    const name = status?.instance?.name;
    if (status === undefined || name === undefined || !isTrue(status.conditions, 'RunnerStarted')) {
      return conflict(of, 'its command has not been started');
    }
    if (!machine || machine.state.kind === 'down') {
      return unavailable(
        `host ${status.host ?? ''} of cijobs.${group} "${of.metadata.name}" is out of reach`,
      );
    }
    const instance = machine.inventory.get(name);
    const { uid, controller } = instance?.labels ?? {};
    const isThere = instance?.status === 'Running' && uid === of.metadata.uid && controller === controllerId;
    if (!isThere || machine.isChanging(name)) {
      return conflict(
        of,
        'it has no instance that runs; `kubectl cijob hold` keeps that of a job that fails',
      );
    }
    if (machine.spec.connection.ssh?.via === 'Sudo') {
      return conflict(of, `its host ${machine.name} is reached via Sudo, which carries no shells`);
    }
    return undefined;
  }

  return {
    find({ namespace, name }) {
      const found = job(keyOf({ namespace, name }));
      if (!found) throw new Refusal(404, 'NotFound', `cijobs.${group} "${name}" not found`);
      const refusal = unfit(found);
      if (refusal) throw refusal;
      const { metadata, status } = found;
      return {
        ...{ namespace, name, uid: metadata.uid },
        ...{ host: status?.host ?? '', instance: status?.instance?.name ?? '' },
      };
    },
    async open(target, { command, root, terminal }, onOutput) {
      const machine = host(target.host);
      try {
        if (!machine) throw new IncusError('Unknown', `there is no IncusHost ${target.host}`);
        return await machine.openShell(target.instance, { command, root, terminal }, onOutput);
      } catch (error) {
        if (!(error instanceof IncusError)) throw error;
        throw unavailable(
          `the guest of cijobs.${group} "${target.name}" cannot be entered: ${error.message}`,
        );
      }
    },
    gone(target) {
      const of = job(keyOf(target));
      if (of?.metadata.uid !== target.uid) return 'the CiJob was deleted, and its instance with it';
      const isThere = of.status?.instance?.name === target.instance && unfit(of) === undefined;
      if (isThere) return undefined;
      if (isFinished(of)) return `the job is over (${of.status?.phase ?? ''}), and its instance gone`;
      return 'its instance is gone, or its host out of reach';
    },
    opened(target, username, root) {
      const of = job(keyOf(target));
      const { instance } = target;
      const note = `${username} opened a shell in instance ${instance} as ${root ? 'root' : "the job's user"}`;
      if (!of) return;
      onOpened(of, { type: 'Normal', reason: 'ShellOpened', action: 'OpenShell', note, isAccess: true });
    },
  };
}

function conflict({ metadata, status }: CiJob, why: string): Refusal {
  const phase = status?.phase ?? 'Pending';
  return new Refusal(409, 'Conflict', `cijobs.${group} "${metadata.name}" is ${phase}: ${why}`);
}
