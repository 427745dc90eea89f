import { readFile } from 'node:fs/promises';
import type { RequestOptions } from 'node:https';
import { rootCertificates } from 'node:tls';
import type { KubeConfig } from '@kubernetes/client-node';
import { proxiedAuthorization } from '../kube/bearer-token.ts';
import { jobPath } from '../kube/job-path.ts';
import { UsageError } from './usage-error.ts';

/** Flags that name the controller's server. */
export interface ServerFlags {
  server?: string;
  certificateAuthority?: string;
  tlsServerName?: string;
  controllerNamespace?: string;
}

/** The controller's server, and who we are to it. */
export interface ServerAccess {
  /** Where its own paths begin. */
  readonly url: URL;
  /** Headers, whom to trust and what else a request needs, for `https` and `ws` alike. */
  readonly options: RequestOptions & { headers: Record<string, string> };
  /** The Service behind the API server's proxy; undefined when the server is reached by itself. */
  readonly service?: Readonly<{ namespace: string; name: string }>;
}

/** The Service of `deploy/components/logs`, as the API server's proxy spells it: scheme, name, and port by name. */
const serviceName = 'https:cijob-logs:https';
const usualNamespace = 'cijob-system';

/**
 * How to reach the controller's server: the one that is named, or else the Service in the controller's namespace,
 * through the API server, which every kubeconfig leads to. A string says why it cannot be reached.
 *
 * @throws UsageError
 */
export async function serverAccess(config: KubeConfig, flags: ServerFlags): Promise<ServerAccess | string> {
  const server = flags.server ?? process.env['CIJOB_LOG_SERVER'] ?? '';
  if (server !== '' && (!URL.canParse(server) || new URL(server).protocol !== 'https:')) {
    throw new UsageError(`--server ${server}: it must be https://HOST[:PORT]`);
  }
  const headers: Record<string, string> = {};
  const ours: RequestOptions = { headers };
  await config.applyToHTTPSOptions(ours);
  const token = process.env['CIJOB_LOG_TOKEN'] ?? /^Bearer (.+)$/i.exec(headers['Authorization'] ?? '')?.[1];
  if (token === undefined) {
    return "the controller's server knows people by token, and this kubeconfig has none: set CIJOB_LOG_TOKEN, for example to what `kubectl create token SERVICEACCOUNT` prints";
  }
  const cluster = config.getCurrentCluster();
  if (server !== '') {
    return {
      url: new URL(server),
      options: {
        headers: { Authorization: `Bearer ${token}` },
        ca: [...rootCertificates, ...(await authorities(config, flags.certificateAuthority))],
        ...(flags.tlsServerName === undefined ? {} : { servername: flags.tlsServerName }),
        agent: false,
      },
    };
  }
  const namespace =
    flags.controllerNamespace ?? (process.env['CIJOB_CONTROLLER_NAMESPACE'] || usualNamespace);
  const url = new URL(cluster?.server ?? 'https://no-cluster.invalid');
  url.pathname = `${url.pathname.replace(/\/$/, '')}/api/v1/namespaces/${namespace}/services/${serviceName}/proxy`;
  return {
    url,
    options: {
      ...ours,
      headers: { ...headers, [proxiedAuthorization]: `Bearer ${token}` },
      // A proxy needs client-node's own agent.
      agent: cluster?.proxyUrl ? ours.agent : false,
    },
    service: { namespace, name: serviceName },
  };
}

/** Where the server has something of a CiJob. */
export function serverUrl(
  { url }: ServerAccess,
  job: { namespace: string; name: string },
  subresource: string,
  query: URLSearchParams,
): URL {
  const target = new URL(url);
  target.pathname = `${url.pathname.replace(/\/$/, '')}${jobPath(job.namespace, job.name, subresource)}`;
  target.search = query.toString();
  return target;
}

/** Authorities to trust beside the usual ones, PEM: the one that is named, and the cluster's. */
async function authorities(config: KubeConfig, named: string | undefined): Promise<string[]> {
  const file = named ?? process.env['CIJOB_LOG_CA'];
  const cluster = config.getCurrentCluster();
  const ofCluster = cluster?.caData
    ? [Buffer.from(cluster.caData, 'base64').toString('utf8')]
    : cluster?.caFile
      ? [await readFile(cluster.caFile, 'utf8')]
      : [];
  return file === undefined ? ofCluster : [await readAuthority(file), ...ofCluster];
}

async function readAuthority(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    throw new UsageError(`${file} cannot be read: ${(error as Error).message}`);
  }
}
