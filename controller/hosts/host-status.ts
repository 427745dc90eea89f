import { dropConditions, setCondition, type ConditionClaim } from '../api/conditions.ts';
import {
  incusHostConditions,
  type IncusHost,
  type IncusHostCondition,
  type IncusHostStatus,
} from '../api/incushost.ts';
import { isInside, sizeOf } from '../api/text.ts';
import type { Refusal } from './breaker.ts';
import type { HostFacts } from './host-facts.ts';
import { hostSize } from './host-size.ts';
import type { HostState } from './host.ts';
import { isolation } from './isolation.ts';
import { rootDiskEnforced } from './root-disk.ts';

type Claim = ConditionClaim;

/**
 * The status of an IncusHost.
 *
 * @param refusal why it is given no jobs although it may take some; see hosts/breaker.ts.
 */
export function hostStatus(
  resource: IncusHost,
  state: HostState,
  used: number,
  observedAt: number,
  now: number,
  refusal?: Refusal,
): IncusHostStatus {
  const time = new Date(now).toISOString();
  const { generation } = resource.metadata;
  let conditions = resource.status?.conditions ?? [];
  const set = (type: IncusHostCondition, claim: Claim) => {
    conditions = setCondition(conditions, incusHostConditions, type, claim, generation, time);
  };
  const up = state.kind === 'up';
  for (const [type, claim] of Object.entries(connection(state))) set(type as IncusHostCondition, claim);
  if (up) set('Restricted', restricted(resource, state.project));
  if (up && state.facts) {
    set('RootDiskEnforced', rootDiskEnforced(resource.spec.storagePool, state.instanceTypes, state.facts));
    set('Isolated', isolation(resource.spec, state.facts));
  }
  const schedulable: Claim = !up
    ? { status: 'False', reason: 'NotConnected', message: state.message }
    : resource.spec.unschedulable
      ? { status: 'False', reason: 'Unschedulable', message: 'spec.unschedulable is set' }
      : refusal !== undefined
        ? creationFailing(refusal)
        : { status: 'True', reason: 'Schedulable', message: 'the host takes jobs' };
  set('Schedulable', schedulable);
  set(
    'Ready',
    up
      ? { status: 'True', reason: 'Connected', message: `Incus ${state.version} answers` }
      : { status: 'False', reason: state.reason, message: state.message },
  );
  conditions = dropConditions(conditions, 'Reconciling', 'Stalled');
  if (!up && state.reason === 'Connecting') {
    set('Reconciling', { status: 'True', reason: state.reason, message: state.message });
  } else if (!up) {
    set('Stalled', { status: 'True', reason: state.reason, message: state.message });
  }
  return {
    ...resource.status,
    observedGeneration: generation,
    ...(up
      ? {
          incus: {
            version: state.version,
            instanceTypes: [...state.instanceTypes],
            project: resource.spec.project,
          },
        }
      : {}),
    instances: { used, capacity: resource.spec.capacity.instances },
    ...(up && state.facts ? { capacity: capacityOf(resource, state.facts) } : {}),
    ...(observedAt > 0 ? { observedAt: new Date(observedAt).toISOString() } : {}),
    conditions,
  };
}

/** What jobs may take. */
function capacityOf({ spec }: IncusHost, facts: HostFacts): NonNullable<IncusHostStatus['capacity']> {
  const { capacity, largest } = hostSize(spec, facts);
  return {
    ...(largest.cpu === Infinity ? {} : { cpu: largest.cpu }),
    ...(capacity.memoryBytes === Infinity ? {} : { memory: sizeOf(capacity.memoryBytes) }),
    ...(largest.rootDiskBytes === Infinity ? {} : { rootDisk: sizeOf(largest.rootDiskBytes) }),
  };
}

/** Creations fail: for all, which closes the host, or for the jobs of some namespaces, which closes it to these. */
function creationFailing({ all, message }: Refusal): Claim {
  return all
    ? { status: 'False', reason: 'CreationFailing', message }
    : { status: 'True', reason: 'CreationFailingForSome', message: `the host takes jobs; ${message}` };
}

/** Reasons that Incus gives, on a machine that we do reach. */
const incusReasons = ['SocketUnavailable', 'ForwardingForbidden', 'SudoRefused', 'SftpUnavailable'];

function connection(state: HostState): Record<'Reachable' | 'IncusResponding', Claim> {
  if (state.kind === 'up') {
    return {
      Reachable: { status: 'True', reason: 'Connected', message: 'the machine is connected' },
      IncusResponding: { status: 'True', reason: 'Answers', message: `Incus ${state.version} answers` },
    };
  }
  const { reason, message } = state;
  const reached = reason.startsWith('Incus') || incusReasons.includes(reason);
  return {
    Reachable: reached
      ? { status: 'True', reason: 'Connected', message: 'the machine is connected' }
      : { status: reason === 'Connecting' ? 'Unknown' : 'False', reason, message },
    IncusResponding: { status: reached ? 'False' : 'Unknown', reason, message },
  };
}

/**
 * Whether Incus itself refuses what allowedSources does not allow
 * (https://linuxcontainers.org/incus/docs/main/reference/projects/#project-restrictions).
 */
function restricted({ spec }: IncusHost, project: Readonly<Record<string, string>>): Claim {
  const no = (reason: string, message: string): Claim => ({ status: 'False', reason, message });
  if (project['restricted'] !== 'true') {
    return no(
      'ProjectNotRestricted',
      `Incus project ${spec.project} is not restricted: our own check of mounts can be raced`,
    );
  }
  if (project['restricted.devices.disk'] !== 'allow') return yes();
  const paths = (project['restricted.devices.disk.paths'] ?? '').split(',').filter((path) => path !== '');
  if (paths.length === 0) {
    return no(
      'AnySourceAllowed',
      `Incus project ${spec.project} allows disks from anywhere (restricted.devices.disk.paths)`,
    );
  }
  const wider = paths.filter((path) => !spec.allowedSources.some((allowed) => isInside(path, allowed)));
  return wider.length === 0
    ? yes()
    : no(
        'WiderThanAllowedSources',
        `Incus project ${spec.project} allows disks from ${wider.join(', ')}, which allowedSources does not`,
      );

  function yes(): Claim {
    return {
      status: 'True',
      reason: 'Restricted',
      message: 'Incus itself refuses sources that are not allowed',
    };
  }
}
