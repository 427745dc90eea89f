import { CiJobSpec, type CiJob } from '../api/cijob.ts';
import { problemsOf } from '../api/problem.ts';
import { structuralSchema } from '../api/structural.ts';
import { config, type Verdict } from './verdict.ts';

/**
 * Why nothing may begin for a job: an earlier version admitted what a rule refuses now (api/stored.ts). What has begun
 * already goes on.
 */
export function specFault({ spec }: CiJob): Verdict | undefined {
  const { error } = CiJobSpec.safeParse(spec);
  if (!error) return undefined;
  const [problem] = problemsOf(error, spec, structuralSchema(CiJobSpec, 'spec'));
  return config(
    'SpecNotAllowed',
    `spec.${problem?.path ?? ''} ${problem?.message ?? ''}. An earlier version took it: create the CiJob with another value`,
  );
}
