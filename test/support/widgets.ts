import * as z from 'zod';
import type { FakeApiStore, FakeObject } from './fake-api-store.ts';
import { ObjectMeta } from '../../controller/api/meta.ts';
import type { Resource } from '../../controller/kube/resource.ts';

/** A small kind of object for tests of what knows nothing of CiJobs. */
export const Widget = z.object({ metadata: ObjectMeta, spec: z.object({ size: z.int() }) });
export type Widget = z.infer<typeof Widget>;

export const widgets: Resource<Widget> = {
  group: 'example.org',
  version: 'v1',
  plural: 'widgets',
  schema: Widget,
};
export const widgetCollection = 'example.org/v1/widgets';

/** Another client's writes. */
export function widgetWriter(store: FakeApiStore) {
  const ref = (name: string) => ({ namespace: 'ci', name });
  return {
    create: (name: string, size: unknown = 1): FakeObject =>
      store.create(widgetCollection, { metadata: ref(name), spec: { size } }),
    resize: (name: string, size: unknown): FakeObject =>
      store.patch(widgetCollection, ref(name), { spec: { size } }, undefined, 'merge'),
    remove: (name: string): FakeObject => store.delete(widgetCollection, ref(name)),
  };
}
