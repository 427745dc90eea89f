import type * as z from 'zod';
import { hintFor, didYouMean } from './hints.ts';
import type { Step, StructuralSchema } from './structural.ts';

/** One thing that is wrong with an object. */
export interface Problem {
  /** The field, as `spec.mounts[1].path`; empty for the object as a whole. */
  path: string;
  /** What is wrong, what was found and, where we can guess it, what was meant. */
  message: string;
}

/** `spec.mounts[1].path`, as Kubernetes writes paths. Keys that are no plain names are quoted: `["a/b"]`. */
export function formatPath(steps: readonly Step[]): string {
  return steps
    .map((step) =>
      typeof step === 'number'
        ? `[${step}]`
        : /^[A-Za-z_$][\w$-]*$/.test(step)
          ? `.${step}`
          : `[${JSON.stringify(step)}]`,
    )
    .join('')
    .replace(/^\./, '');
}

/** A problem and where it is, for callers that know more of the place, such as its line. */
export interface LocatedProblem extends Problem {
  steps: Step[];
}

/**
 * What zod found wrong with `input`, in words for the one who wrote it; at most one problem a field.
 *
 * @param schema the structural schema of the same object: it knows the fields there could have been.
 */
export function problemsOf(error: z.ZodError, input: unknown, schema: StructuralSchema): LocatedProblem[] {
  const problems = error.issues.flatMap((issue) => explain(issue, input, schema));
  return problems.filter((problem, index) => problems.findIndex((p) => p.path === problem.path) === index);
}

function explain(issue: z.core.$ZodIssue, input: unknown, schema: StructuralSchema): LocatedProblem[] {
  const steps = issue.path.map((step) => (typeof step === 'number' ? step : String(step)));
  const located = (at: Step[], message: string) => ({ steps: at, path: formatPath(at), message });
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) =>
      located([...steps, key], `is not a field${didYouMean(key, steps, schema)}`),
    );
  }
  const found = valueAt(input, steps);
  if (found === undefined && issue.code === 'invalid_type') return [located(steps, 'is required')];
  // What is wrong with a list or map as a whole is said in full by our own message.
  const repeat = issue.code !== 'custom' || typeof found !== 'object';
  const clause = repeat ? foundClause(found) : '';
  return [located(steps, `${complaint(issue)}${clause}${hintFor(issue, found)}`)];
}

const articles: Record<string, string> = {
  string: 'a string',
  int: 'a whole number',
  number: 'a whole number',
  boolean: 'true or false',
  array: 'a list',
  object: 'a map of fields',
  record: 'a map of strings',
};

/** What the value must be, without the value. Our own messages are such already; zod's are put into words here. */
function complaint(issue: z.core.$ZodIssue): string {
  if (issue.code === 'invalid_type') return `must be ${articles[issue.expected] ?? issue.expected}`;
  if (issue.code === 'invalid_value') {
    return `must be ${issue.values.length === 1 ? '' : 'one of '}${issue.values.map(String).join(', ')}`;
  }
  if (issue.code === 'too_small') return `must ${bound(issue.origin, 'at least', issue.minimum)}`;
  if (issue.code === 'too_big') return `must ${bound(issue.origin, 'at most', issue.maximum)}`;
  return issue.message;
}

function bound(origin: string, atLeast: string, limit: number | bigint): string {
  if (origin === 'string') {
    return atLeast === 'at least' && Number(limit) === 1
      ? 'not be empty'
      : `be ${atLeast} ${limit.toString()} characters long`;
  }
  if (origin === 'array') return `have ${atLeast} ${limit.toString()} elements`;
  return `be ${atLeast} ${limit.toString()}`;
}

/** The longest value that a message repeats. */
const foundMax = 60;

function foundClause(found: unknown): string {
  if (found === undefined) return '';
  if (found === null) return ', found nothing (null)';
  if (Array.isArray(found)) return ', found a list';
  if (typeof found === 'object') return ', found a map';
  if (found === '') return '';
  const shown = JSON.stringify(found);
  const cut =
    shown.length > foundMax ? `${shown.slice(0, foundMax)}… (${shown.length - 2} characters)` : shown;
  return typeof found === 'string' ? `, found ${cut}` : `, found the ${typeof found} ${cut}`;
}

/** The value that `steps` lead to; undefined where there is none. */
export function valueAt(root: unknown, steps: readonly Step[]): unknown {
  let value = root;
  for (const step of steps) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, step)) return undefined;
    value = (value as Record<Step, unknown>)[step];
  }
  return value;
}
