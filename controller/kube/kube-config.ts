import { existsSync, readFileSync } from 'node:fs';
import { KubeConfig } from '@kubernetes/client-node';

const serviceAccount = '/var/run/secrets/kubernetes.io/serviceaccount';

/**
 * The cluster to talk to, chosen as kubectl and controller-runtime choose it: the given file, else `$KUBECONFIG`,
 * else the service account of the pod we run in, else `~/.kube/config`.
 *
 * @throws Error that says which of them is missing or broken.
 */
export function loadKubeConfig(options: { file?: string; context?: string } = {}): KubeConfig {
  const config = new KubeConfig();
  const inPod = process.env['KUBERNETES_SERVICE_HOST'] && existsSync(`${serviceAccount}/token`);
  if (options.file) config.loadFromFile(options.file);
  else if (!process.env['KUBECONFIG'] && inPod) config.loadFromCluster();
  else config.loadFromDefault();
  if (options.context) config.setCurrentContext(options.context);
  const context = config.getCurrentContext();
  const cluster = config.getCurrentCluster();
  if (!cluster) {
    throw new Error(
      `no cluster for the context "${context}" in the kubeconfig; see kubectl config get-contexts`,
    );
  }
  if (cluster.server.startsWith('http:') && !cluster.skipTLSVerify) {
    // client-node would refuse every request, with less to go by.
    throw new Error(
      `the cluster "${cluster.name}" is reached by plain http; set insecure-skip-tls-verify to allow it`,
    );
  }
  return config;
}

/** The namespace the controller lives in: the pod's, else the kubeconfig context's, else `default`. */
export function ownNamespace(config: KubeConfig): string {
  const file = `${serviceAccount}/namespace`;
  const ofContext = config.getContextObject(config.getCurrentContext())?.namespace;
  return ofContext ?? (existsSync(file) ? readFileSync(file, 'utf8').trim() : 'default');
}
