import * as z from 'zod';

/**
 * For the second argument of `refine`: the rule holds for what is created. Objects that an earlier version admitted
 * without it are still read ({@link stored}), as what they made must be looked after until it is gone.
 */
export const atAdmission = { params: { atAdmission: true } };

/**
 * The schema by which stored objects are read: the one of new objects without its rules {@link atAdmission}. Whoever
 * begins something on the word of such an object holds it to the whole schema first.
 */
export function stored<T extends z.ZodType>(schema: T) {
  return z.unknown().transform((value, { issues }): z.output<T> => {
    // The first half of zod's own `safeParse`, which has no value to give beside what is wrong with it.
    const read = schema._zod.run({ value, issues: [] }, { async: false });
    if (read instanceof Promise) throw new z.core.$ZodAsyncError();
    issues.push(...read.issues.filter((issue) => !isForgiven(issue)));
    return read.value as z.output<T>;
  });
}

function isForgiven(issue: z.core.$ZodRawIssue): boolean {
  return issue.code === 'custom' && issue.params?.['atAdmission'] === true;
}
