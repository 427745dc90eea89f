/*
 * Globs, matched step by step along a path. Not by a library that makes regular expressions of them: whoever may create
 * a CiJob writes the globs, its guest writes the names, and a pattern such as *a*a*a*a*b keeps a backtracking matcher
 * busy for years. Here a step costs at most the length of the globs, and how a directory's path fared says already
 * whether anything below it can match.
 */

type State =
  /** Takes one character. */
  | { kind: 'take'; takes: (character: string) => boolean; next: number }
  /** Takes nothing: goes on at each of these. */
  | { kind: 'fork'; next: number[] }
  /** A glob matches: the one of that number. */
  | { kind: 'end'; glob: number };

const notSlash = (character: string) => character !== '/';

/** How far some globs match a path that is still being read. */
export class GlobPosition {
  readonly #states: readonly State[];
  readonly #at: ReadonlySet<number>;

  constructor(states: readonly State[], at: ReadonlySet<number>) {
    this.#states = states;
    this.#at = at;
  }

  /** Where they are after more characters of the path. */
  after(more: string): GlobPosition {
    let at = this.#at;
    for (const character of more) {
      if (at.size === 0) break;
      const next = new Set<number>();
      for (const index of at) {
        const state = this.#states[index];
        if (state?.kind === 'take' && state.takes(character)) settle(this.#states, state.next, next);
      }
      at = next;
    }
    return new GlobPosition(this.#states, at);
  }

  /** Whether a glob matches the path as it is. */
  get matches(): boolean {
    return this.matching.length > 0;
  }

  /** Numbers of the globs that match the path as it is. */
  get matching(): number[] {
    return [...this.#at].flatMap((index) => {
      const state = this.#states[index];
      return state?.kind === 'end' ? state.glob : [];
    });
  }

  /** Whether a glob may match the path and something more. */
  get leadsOn(): boolean {
    return [...this.#at].some((index) => this.#states[index]?.kind === 'take');
  }

  /** How much work a further character is at most. */
  get cost(): number {
    return this.#at.size;
  }
}

/** A glob without the elements that say nothing: `./a//b/.` is `a/b/`, and matches nothing as a file has no such name. */
export function plainGlob(glob: string): string {
  return glob.replace(/(^|\/)(\.?\/)+/g, '$1').replace(/(^|\/)\.$/, '$1');
}

/**
 * Makes globs ready, at the beginning of a path. `*` and `?` stand for characters other than `/`, a leading dot
 * included; `**` as a whole element for any number of directories, and at the end for everything below; `[a-z]`
 * and `[!a-z]` for one character; `{a,b}` for either; `\` takes away what the next character means. What is not
 * closed stands for itself: every string is a glob. `./a` is `a`.
 */
export function compileGlobs(globs: readonly string[]): GlobPosition {
  const states: State[] = [];
  const starts = globs.map((glob, number) => new Compiler(plainGlob(glob), states).start(number));
  const at = new Set<number>();
  for (const start of starts) settle(states, start, at);
  return new GlobPosition(states, at);
}

/** Adds a state, or where it forks to. */
function settle(states: readonly State[], first: number, into: Set<number>): void {
  const seen = new Set<number>();
  const open = [first];
  for (let index = open.pop(); index !== undefined; index = open.pop()) {
    if (seen.has(index)) continue;
    seen.add(index);
    const state = states[index];
    if (state?.kind === 'fork') open.push(...state.next);
    else into.add(index);
  }
}

/** Builds the states of one glob from its end to its start, so that each knows the next. */
class Compiler {
  readonly #characters: readonly string[];
  readonly #states: State[];

  constructor(glob: string, states: State[]) {
    this.#characters = Array.from(glob);
    this.#states = states;
  }

  /** Returns the first state. @param glob the number of the glob. */
  start(glob: number): number {
    return this.#sequence(0, this.#characters.length, this.#add({ kind: 'end', glob }));
  }

  #add(state: State): number {
    return this.#states.push(state) - 1;
  }

  /** States for the characters from `from` to `to`, going on at `next`. */
  #sequence(from: number, to: number, next: number): number {
    const parts: ((next: number) => number)[] = [];
    for (let at = from; at < to;) {
      const part = this.#part(at, to);
      parts.push(part.build);
      at = part.end;
    }
    return parts.reduceRight((after, build) => build(after), next);
  }

  /** What begins at a character, where it ends, and how to build it. */
  #part(at: number, to: number): { end: number; build: (next: number) => number } {
    const character = this.#characters[at] ?? '';
    const take =
      (takes: (one: string) => boolean) =>
      (next: number): number =>
        this.#add({ kind: 'take', takes, next });
    switch (character) {
      case '\\':
        if (at + 1 === to) break;
        return { end: at + 2, build: take(is(this.#characters[at + 1] ?? '')) };
      case '?':
        return { end: at + 1, build: take(notSlash) };
      case '*':
        return this.#stars(at, to);
      case '[': {
        const set = this.#set(at, to);
        if (!set) break;
        return { end: set.end, build: take(set.takes) };
      }
      case '{': {
        const group = this.#group(at, to);
        if (!group) break;
        const build = (next: number) =>
          this.#add({ kind: 'fork', next: group.bounds.map(([a, b]) => this.#sequence(a, b, next)) });
        return { end: group.end, build };
      }
    }
    return { end: at + 1, build: take(is(character)) };
  }

  #stars(at: number, to: number): { end: number; build: (next: number) => number } {
    const begins = at === 0 || '/{,'.includes(this.#characters[at - 1] ?? '');
    const twice = begins && at + 1 < to && this.#characters[at + 1] === '*';
    if (twice && at + 2 === to) return { end: to, build: (next) => this.#some(() => true, next) };
    if (twice && this.#characters[at + 2] === '/') {
      // No directory; or one, and then the same again.
      const build = (next: number) => {
        const again: number[] = [next];
        const loop = this.#add({ kind: 'fork', next: again });
        again.push(this.#some(notSlash, this.#add({ kind: 'take', takes: is('/'), next: loop })));
        return loop;
      };
      return { end: at + 3, build };
    }
    return { end: at + 1, build: (next) => this.#many(notSlash, next) };
  }

  /** Any number of characters. */
  #many(takes: (character: string) => boolean, next: number): number {
    const again: number[] = [next];
    const loop = this.#add({ kind: 'fork', next: again });
    again.push(this.#add({ kind: 'take', takes, next: loop }));
    return loop;
  }

  /** One character or more. */
  #some(takes: (character: string) => boolean, next: number): number {
    return this.#add({ kind: 'take', takes, next: this.#many(takes, next) });
  }

  /** `[…]` from `at` on; undefined when it is not closed. */
  #set(at: number, to: number): { end: number; takes: (character: string) => boolean } | undefined {
    const negated = '!^'.includes(this.#characters[at + 1] ?? ' ');
    const first = at + (negated ? 2 : 1);
    // A bracket that comes first is one of the characters.
    const close = this.#characters.indexOf(']', first + 1);
    if (close < 0 || close >= to) return undefined;
    const ranges: [string, string][] = [];
    for (let index = first; index < close;) {
      const from = this.#characters[index] ?? '';
      const isRange = this.#characters[index + 1] === '-' && index + 2 < close;
      ranges.push([from, isRange ? (this.#characters[index + 2] ?? '') : from]);
      index += isRange ? 3 : 1;
    }
    const within = (character: string) =>
      ranges.some(([from, last]) => code(from) <= code(character) && code(character) <= code(last));
    return { end: close + 1, takes: (character) => notSlash(character) && within(character) !== negated };
  }

  /** `{…}` from `at` on, and where each of its alternatives is; undefined when it is not closed. */
  #group(at: number, to: number): { end: number; bounds: [from: number, to: number][] } | undefined {
    const bounds: [number, number][] = [];
    let depth = 0;
    let from = at + 1;
    for (let index = from; index < to; index += 1) {
      const character = this.#characters[index];
      if (character === '\\') index += 1;
      else if (character === '{') depth += 1;
      else if (character === '}' && depth > 0) depth -= 1;
      else if (depth === 0 && (character === ',' || character === '}')) {
        bounds.push([from, index]);
        from = index + 1;
        if (character === '}') return { end: from, bounds };
      }
    }
    return undefined;
  }
}

function is(wanted: string): (character: string) => boolean {
  return (character) => character === wanted;
}

function code(character: string): number {
  return character.codePointAt(0) ?? 0;
}
