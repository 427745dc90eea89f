import * as z from 'zod';

/**
 * One condition, as `metav1.Condition`
 * (https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md).
 */
export const Condition = z.object({
  type: z.string().max(316).describe('Kind of condition, in CamelCase.'),
  status: z.enum(['True', 'False', 'Unknown']).describe('Whether it holds.'),
  observedGeneration: z
    .int()
    .min(0)
    .max(Number.MAX_SAFE_INTEGER)
    .optional()
    .describe('The metadata.generation that this was said about.'),
  lastTransitionTime: z.iso.datetime().meta({ format: 'date-time' }).describe('When status last changed.'),
  reason: z.string().min(1).max(1024).describe('Programmatic reason of the last transition, in CamelCase.'),
  message: z.string().max(32768).describe('What happened, where, and what to do about it.'),
});
export type Condition = z.infer<typeof Condition>;
export type ConditionStatus = Condition['status'];

/** What a caller says about a condition; {@link setCondition} adds the bookkeeping. */
export interface ConditionClaim {
  status: ConditionStatus;
  reason: string;
  message: string;
}

/**
 * Sets one condition, the only way conditions are ever set: `lastTransitionTime` moves only when `status` does,
 * and `order` decides the place of each type in the list. Types that `order` does not name come last.
 *
 * @param now RFC 3339 time of the change.
 */
export function setCondition(
  conditions: readonly Condition[],
  order: readonly string[],
  type: string,
  claim: ConditionClaim,
  generation: number,
  now: string,
): Condition[] {
  const before = conditions.find((condition) => condition.type === type);
  const after: Condition = {
    type,
    status: claim.status,
    observedGeneration: generation,
    lastTransitionTime: before?.status === claim.status ? before.lastTransitionTime : now,
    reason: claim.reason,
    message: claim.message.slice(0, 32768),
  };
  return [...conditions.filter((condition) => condition.type !== type), after].sort(
    (a, b) => place(order, a.type) - place(order, b.type),
  );
}

function place(order: readonly string[], type: string): number {
  const index = order.indexOf(type);
  return index < 0 ? order.length : index;
}

/** The conditions without those of `types`: for the ones that are present only while true. */
export function dropConditions(conditions: readonly Condition[], ...types: string[]): Condition[] {
  return conditions.filter((condition) => !types.includes(condition.type));
}

export function findCondition(
  conditions: readonly Condition[] | undefined,
  type: string,
): Condition | undefined {
  return conditions?.find((condition) => condition.type === type);
}

export function isTrue(conditions: readonly Condition[] | undefined, type: string): boolean {
  return findCondition(conditions, type)?.status === 'True';
}
