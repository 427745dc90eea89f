import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { crdFiles } from './crd-files.ts';

/* `npm run crds`: writes the CustomResourceDefinitions of the schemas beside this file to crds/. */

const directory = join(import.meta.dirname, '../../crds');
mkdirSync(directory, { recursive: true });
for (const [name, content] of Object.entries(crdFiles())) {
  writeFileSync(join(directory, name), content);
  console.log(`crds/${name}`);
}
