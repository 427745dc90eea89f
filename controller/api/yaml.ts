import { isMap, isNode, isPair, isScalar, LineCounter, parseAllDocuments, type Document } from 'yaml';
import type { LocatedProblem } from './problem.ts';
import type { Step } from './structural.ts';

/** One document of a YAML (or JSON) file. */
export interface YamlDocument {
  value: unknown;
  /** Why there is no value: the document is not YAML that we take. */
  faults: (LocatedProblem & { line?: number })[];
  /** The line, from 1, of the field that `steps` lead to, or of the nearest thing around it. */
  lineOf: (steps: readonly Step[]) => number | undefined;
}

/** The API server takes no more than 1.5 MiB either. */
export const maxManifestBytes = 2 ** 20;

/** Aliases, each counted with what it repeats: room for honest reuse, none for a file that grows to gigabytes. */
const maxAliasCount = 100;

/** Tags that kubectl's YAML does not know, whose values it reads as strings. */
const unknownToKubectl = ['timestamp', 'binary', 'set', 'omap', 'pairs'];

/**
 * Reads a file as kubectl does, so that it means the same with a cluster and without: YAML 1.1, in which `yes` is
 * true, or values of JSON after each other. Documents that are empty are left out. Never throws: what is wrong stands in
 * each document's `faults`.
 */
export function readYaml(text: string): YamlDocument[] {
  const bytes = Buffer.byteLength(text);
  if (bytes > maxManifestBytes) return [faulty(`has ${bytes} bytes; at most ${maxManifestBytes} are taken`)];
  return jsonStream(text)?.flatMap(({ value, line }) => readPart(value, line)) ?? readPart(text, 1);
}

/** The values of a text that is nothing but values of JSON, such as `jq` prints; undefined for any other text. */
function jsonStream(text: string): { value: string; line: number }[] | undefined {
  if (!/^\s*\{/.test(text)) return undefined;
  const values: { value: string; line: number }[] = [];
  let [depth, start, line, startLine] = [0, 0, 1, 1];
  // Strings are tokens of their own, so that what is in them counts for nothing.
  for (const { 0: token, index } of text.matchAll(/"(?:[^"\\]|\\.)*"|[{}\[\]\n]|[^"{}\[\]\s]+/gs)) {
    if (token === '\n') line += 1;
    else if (token === '{' || token === '[') {
      if (depth === 0) [start, startLine] = [index, line];
      depth += 1;
    } else if (token === '}' || token === ']') {
      depth -= 1;
      if (depth === 0) values.push({ value: text.slice(start, index + 1), line: startLine });
    } else if (depth === 0) return undefined;
    else line += token.split('\n').length - 1;
    if (depth < 0) return undefined;
  }
  return depth === 0 && values.every(({ value }) => isJson(value)) ? values : undefined;
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** Reads documents that begin at a line of their file. */
function readPart(text: string, firstLine: number): YamlDocument[] {
  const counter = new LineCounter();
  const lineAt = (offset: number) => counter.linePos(offset).line + firstLine - 1;
  try {
    const documents = parseAllDocuments(text, {
      version: '1.1',
      lineCounter: counter,
      prettyErrors: false,
      uniqueKeys: true,
      stringKeys: true,
      customTags: (tags) =>
        tags.filter(
          (tag) =>
            typeof tag === 'string' ||
            !(unknownToKubectl.includes(tag.tag.replace('tag:yaml.org,2002:', '')) || tag.format === 'TIME'),
        ),
    });
    return [...documents]
      .map((document) => readDocument(document, lineAt))
      .filter(({ value, faults }) => value !== null || faults.length > 0);
  } catch (error) {
    // The parser recurses: a hundred thousand brackets end its stack.
    if (error instanceof RangeError) return [faulty('is nested too deeply')];
    throw error;
  }
}

/** The line of an offset, from 1. */
type LineAt = (offset: number) => number;

function faulty(message: string, line?: number): YamlDocument {
  const where = line === undefined ? {} : { line };
  return { value: null, faults: [{ steps: [], path: '', message, ...where }], lineOf: () => undefined };
}

function readDocument(document: Document.Parsed, lineAt: LineAt): YamlDocument {
  // An unknown tag is only a warning to the parser, but then the value is not what its author meant.
  const [trouble] = [...document.errors, ...document.warnings];
  if (trouble) return faulty(`is not valid YAML: ${trouble.message}`, lineAt(trouble.pos[0]));
  try {
    const value: unknown = document.toJS({ maxAliasCount });
    if (isCyclic(value, [])) return faulty('has an alias that leads back to itself');
    return { value, faults: [], lineOf: (steps) => lineOf(document, steps, lineAt) };
  } catch (error) {
    // Aliases that go nowhere or multiply, merges of what is no map: found only when values are made of the nodes.
    return faulty(`is not valid YAML: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function isCyclic(value: unknown, above: readonly unknown[]): boolean {
  if (typeof value !== 'object' || value === null) return false;
  if (above.includes(value)) return true;
  return Object.values(value).some((child) => isCyclic(child, [...above, value]));
}

function lineOf(document: Document, steps: readonly Step[], lineAt: LineAt): number | undefined {
  for (let length = steps.length; length >= 0; length--) {
    const path = steps.slice(0, length);
    const key = keyOf(document, path);
    const node = key ?? document.getIn(path, true);
    if (isNode(node) && node.range) return lineAt(node.range[0]);
  }
  return undefined;
}

/** The key of the last step, where it is a field: the line where a reader looks for it. */
function keyOf(document: Document, path: readonly Step[]): unknown {
  const last = path.at(-1);
  const parent = document.getIn(path.slice(0, -1), true);
  if (typeof last !== 'string' || !isMap(parent)) return undefined;
  return parent.items.find((pair) => isPair(pair) && isScalar(pair.key) && pair.key.value === last)?.key;
}
