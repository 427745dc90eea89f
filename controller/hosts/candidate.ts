import type { IncusHost, IncusHostSpec } from '../api/incushost.ts';
import type { Offer } from './admission.ts';
import { hostSize } from './host-size.ts';
import type { HostState } from './host.ts';
import type { Candidate } from './scheduler.ts';

/** What is known of a host that nothing is known to run on. */
export function candidateOf({ metadata, spec }: IncusHost, state: HostState): Candidate {
  return {
    name: metadata.name,
    labels: metadata.labels ?? {},
    up: state.kind === 'up',
    unschedulable: unschedulable(spec, metadata.deletionTimestamp),
    instanceTypes: state.kind === 'up' ? state.instanceTypes : undefined,
    namespaceLabels: spec.allowedNamespaces.matchLabels,
    ...hostSize(spec, state.kind === 'up' ? state.facts : undefined),
    instances: [],
  };
}

function unschedulable(spec: IncusHostSpec, deleted: string | undefined): string | undefined {
  if (deleted !== undefined) return 'it is being deleted';
  return spec.unschedulable ? 'spec.unschedulable is set' : undefined;
}

/** What a host offers on which nothing runs. */
export function offerOf(resource: IncusHost, state: HostState): Offer {
  const candidate = candidateOf(resource, state);
  return {
    ...candidate,
    refusal: () => candidate.unschedulable,
    used: { instances: 0, cpu: 0, memoryBytes: 0 },
  };
}
