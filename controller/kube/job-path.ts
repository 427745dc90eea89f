import { group, version } from '../api/meta.ts';

/** What a path of the controller's server names: something of one CiJob, by its subresource. */
export interface JobPath {
  namespace: string;
  name: string;
  query: URLSearchParams;
}

/** `/apis/ci.pikaci.dev/v1alpha1/namespaces/NAMESPACE/cijobs/NAME/SUBRESOURCE`, as clients build it. */
export function jobPath(namespace: string, name: string, subresource: string): string {
  return `/apis/${group}/${version}/namespaces/${namespace}/cijobs/${name}/${subresource}`;
}

/** Reads such a path, with its query; undefined when it is not one of that subresource. */
export function parseJobPath(url: string | undefined, subresource: string): JobPath | undefined {
  const [path = '', search = ''] = (url ?? '').split('?', 2);
  const [, namespace, name, below] = pattern.exec(path) ?? [];
  if (namespace === undefined || name === undefined || below !== subresource) return undefined;
  return { namespace, name, query: new URLSearchParams(search) };
}

const pattern =
  /^\/apis\/ci\.pikaci\.dev\/v1alpha1\/namespaces\/([a-z0-9-]{1,63})\/cijobs\/([a-z0-9.-]{1,253})\/([a-z]{1,63})$/;
