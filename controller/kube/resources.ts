import * as z from 'zod';
import { CiJob } from '../api/cijob.ts';
import { IncusHost } from '../api/incushost.ts';
import { group, version } from '../api/meta.ts';
import { stored } from '../api/stored.ts';
import type { Resource } from './resource.ts';

export const cijobs: Resource<CiJob> = { group, version, plural: 'cijobs', schema: stored(CiJob) };
export const incushosts: Resource<IncusHost> = {
  group,
  version,
  plural: 'incushosts',
  schema: stored(IncusHost),
};

const Namespace = z.object({
  metadata: z.object({
    name: z.string(),
    uid: z.string(),
    resourceVersion: z.string().optional(),
    labels: z.record(z.string(), z.string()).optional(),
  }),
});
export type Namespace = z.infer<typeof Namespace>;
export const namespaces: Resource<Namespace> = {
  group: '',
  version: 'v1',
  plural: 'namespaces',
  schema: Namespace,
};

const Secret = z.object({ data: z.record(z.string(), z.string()).optional() });
export const secrets: Resource<z.infer<typeof Secret>> = {
  group: '',
  version: 'v1',
  plural: 'secrets',
  schema: Secret,
};
