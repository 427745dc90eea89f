import type { CiJob } from '../api/cijob.ts';
import {
  apiVersion,
  holdUntilAnnotation,
  instanceCleanupFinalizer,
  releaseAnnotation,
  retryOfAnnotation,
} from '../api/meta.ts';
import { beginningOf } from '../api/object-name.ts';
import { hasReason } from '../kube/api-error.ts';
import { cijobs } from '../kube/resources.ts';
import { isFinished } from '../reconcile/step.ts';
import { getJob, Unable, withCluster, type Cluster, type ClusterFlags } from './cluster.ts';
import { out } from './output.ts';

/** `cijob cancel NAME`: ends a job; its log and what is known of it stay. */
export async function cancel(name: string, flags: ClusterFlags): Promise<number> {
  return withCluster(flags, async (cluster) => {
    const job = await getJob(cluster, name);
    if (isFinished(job)) {
      say(`cijob ${name} is over already: ${job.status?.phase ?? ''}`);
      return 0;
    }
    await cluster.client.mergePatch(cijobs, ref(cluster, name), { spec: { cancel: true } });
    say(`cijob ${name} is being cancelled`);
    return 0;
  });
}

/** Labels by which other tools know what is theirs. A copy is not. */
const ownership =
  /^(app\.kubernetes\.io\/(instance|managed-by)|argocd\.argoproj\.io\/|kustomize\.toolkit\.fluxcd\.io\/|helm\.toolkit\.fluxcd\.io\/)/;
const longestName = 253;

/** `cijob retry NAME`: makes a new CiJob from the spec of one that is over. */
export async function retry(name: string, flags: ClusterFlags): Promise<number> {
  return withCluster(flags, async (cluster) => {
    const job = await getJob(cluster, name);
    if (!isFinished(job)) {
      throw new Unable(`cijob ${name} is not over yet: it is ${job.status?.phase ?? 'Pending'}`);
    }
    const base = name.replace(/-retry-\d+$/, '');
    for (let number = 1; ; number += 1) {
      const suffix = `-retry-${number}`;
      const copy = `${beginningOf(base, longestName - suffix.length)}${suffix}`;
      try {
        await cluster.client.create(cijobs, cluster.namespace, retryOf(job, copy));
        say(copy);
        return 0;
      } catch (error) {
        if (!hasReason(error, 'AlreadyExists')) throw error;
      }
    }
  });
}

/** The manifest of a job's copy. */
export function retryOf({ metadata, spec }: CiJob, name: string): object {
  const labels = Object.entries(metadata.labels ?? {}).filter(([label]) => !ownership.test(label));
  return {
    apiVersion,
    kind: 'CiJob',
    metadata: {
      name,
      labels: Object.fromEntries(labels),
      annotations: { [retryOfAnnotation]: metadata.name },
    },
    spec: { ...spec, cancel: false, suspend: false },
  };
}

/** `cijob hold NAME`: keeps the instance of a job that fails, or has failed, for so many seconds from now. */
export async function hold(name: string, flags: ClusterFlags & { seconds: number }): Promise<number> {
  return withCluster(flags, async (cluster) => {
    const job = await getJob(cluster, name);
    if (isFinished(job) && !job.metadata.finalizers?.includes(instanceCleanupFinalizer)) {
      throw new Unable(`cijob ${name} is over, and its instance gone`);
    }
    const until = new Date(Date.now() + flags.seconds * 1000).toISOString();
    const annotations = { [holdUntilAnnotation]: until, [releaseAnnotation]: null };
    await cluster.client.mergePatch(cijobs, ref(cluster, name), { metadata: { annotations } });
    say(`the instance of cijob ${name} is kept until ${until} if the job fails`);
    return 0;
  });
}

/** `cijob release NAME`: lets the instance of a failed job go before its time. */
export async function release(name: string, flags: ClusterFlags): Promise<number> {
  return withCluster(flags, async (cluster) => {
    await getJob(cluster, name);
    const annotations = { [releaseAnnotation]: new Date().toISOString(), [holdUntilAnnotation]: null };
    await cluster.client.mergePatch(cijobs, ref(cluster, name), { metadata: { annotations } });
    say(`the instance of cijob ${name} is not kept any longer`);
    return 0;
  });
}

function ref({ namespace }: Cluster, name: string) {
  return { namespace, name };
}

function say(line: string): void {
  void out(`${line}\n`);
}
