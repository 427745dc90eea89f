import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

const repository = join(import.meta.dirname, '../..');

/** A block of shell commands in README.md or docs/. */
export interface DocBlock {
  /** The heading above it. */
  title: string;
  commands: string;
  /** Marked `sh tested`: a test runs it as it stands there. */
  tested: boolean;
  /** What its first line says it needs of the reader's own, which no test has: `# Needs a cluster of yours`. */
  needs?: string;
}

/** Reads the shell blocks of a document, given by its path in the repository, in their order. */
export async function docBlocks(path: string): Promise<DocBlock[]> {
  const text = await readFile(join(repository, path), 'utf8');
  const sections = text.split(/^(?=#{2,3} )/m);
  return sections.flatMap((section) => {
    const title = /^#{2,3} (.*)/.exec(section)?.[1] ?? '';
    const fences = section.matchAll(/^( *)```([^\n]*)\n([\s\S]*?)^\1```$/gm);
    return [...fences].flatMap(([, indent = '', info = '', body = '']) => {
      const [language = '', ...words] = info.trim().split(' ');
      if (!['sh', 'bash', 'shell', 'console'].includes(language)) return [];
      const commands = body.replaceAll(new RegExp(`^${indent}`, 'gm'), '');
      const needs = /^# Needs (.* of yours)\b/.exec(commands)?.[1];
      return [{ title, commands, tested: words.includes('tested'), ...(needs !== undefined && { needs }) }];
    });
  });
}

/** The fences of a document that name no language, by their first line: commands hide in them. */
export async function unnamedFences(path: string): Promise<string[]> {
  const lines = (await readFile(join(repository, path), 'utf8')).split('\n');
  let open = false;
  return lines.filter((line, index) => {
    if (!/^ *```/.test(line)) return false;
    open = !open;
    return (
      open &&
      line.trim() === '```' &&
      /^\s*(\$ |kubectl |incus |npm |npx |cijob )/.test(lines[index + 1] ?? '')
    );
  });
}
