import { stringify } from 'yaml';
import { customResourceDefinition, resources } from './crd.ts';
import { group } from './meta.ts';

const header = '# Generated from controller/api by `npm run crds`. Do not edit.\n';

/** The files of crds/ as they ought to be: name to content. */
export function crdFiles(): Record<string, string> {
  return Object.fromEntries(
    resources.map((resource) => [
      `${group}_${resource.plural}.yaml`,
      // No aliases: a rule that stands in two places is written out twice, for people and for other YAML readers.
      header + stringify(customResourceDefinition(resource), { lineWidth: 0, aliasDuplicateObjects: false }),
    ]),
  );
}
