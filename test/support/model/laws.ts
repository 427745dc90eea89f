import type { CiJobStatus } from '../../../controller/api/cijob-status.ts';
import { findCondition, isTrue } from '../../../controller/api/conditions.ts';
import { instanceName } from '../../../controller/reconcile/names.ts';
import { isInfrastructure } from './guest.ts';
import type { ModelInstance } from './incus.ts';
import type { Subject, World } from './world.ts';

/** Answers that a job loses before it may say that the infrastructure failed it. */
const answersToGiveUp = 5;

/** What must hold in every world that has come to rest. Returns what does not, in plain words. */
export function broken(world: World): string[] {
  return [
    ...world.subjects.flatMap((subject) => [
      ...ranTooOften(world, subject),
      ...untruthful(world, subject),
      ...flapped(world, subject).map((what) => `${subject.key}: ${what}`),
    ]),
    ...leftOver(world),
  ];
}

function ranTooOften(world: World, { uid, key }: Subject): string[] {
  const runs = new Map<string, number>();
  for (const { name, guest } of world.livesOf(uid)) runs.set(name, (runs.get(name) ?? 0) + guest.runs);
  return [...runs]
    .filter(([, count]) => count > 1)
    .map(([name]) => `${key}: the command ran twice as ${name}`);
}

/** The outcome is what really happened, and nothing but what happened outside of the controller explains a failure. */
function untruthful(world: World, subject: Subject): string[] {
  const { key, uid, plan, calledOff } = subject;
  const status = world.api.history.get(uid)?.at(-1);
  const lives = world.livesOf(uid);
  if (!status) return calledOff ? [] : [`${key}: has no status`];
  const name = instanceName(uid, status.attempt ?? 1);
  const ended = lives.filter((life) => life.name === name).map(({ guest }) => guest.ended);
  const { failure } = status;
  const complaints: string[] = [];
  const must = (holds: boolean, what: string) => {
    if (!holds) complaints.push(`${key}: ${what}`);
  };
  if (!isTrue(status.conditions, 'Complete') && !failure) {
    must(calledOff && status.host === undefined, 'has no outcome');
    return complaints;
  }
  must(
    isTrue(status.conditions, 'Complete') !== isTrue(status.conditions, 'Failed'),
    'is complete and failed at once',
  );
  if (!failure) must(ended.includes('passed'), 'is complete, but no command passed in its last attempt');
  switch (failure?.class) {
    case 'Test':
      must(ended.includes('failed'), 'is said to have failed its test, but did not');
      break;
    case 'Timeout':
      must(
        ended.includes('timed out') || failure.reason === 'HostDeadlineExceeded',
        'is said to have timed out, but did not',
      );
      break;
    case 'Cancelled':
      must(calledOff, 'is said to be cancelled, but nobody did that');
      break;
    case 'Config':
      must(false, `is blamed on its configuration: ${failure.reason}: ${failure.message}`);
      break;
    case 'Infrastructure':
    case undefined:
      break;
  }
  const { damage } = world;
  if (calledOff || damage.infrastructure || damage.answersLost >= answersToGiveUp) return complaints;
  // Crashes, cut connections, lost answers, stale reads, disordered events and second leaders must not show at all.
  const [attempts, expected] = outcomeOf(subject);
  const got = failure?.class ?? 'Complete';
  must(
    got === expected,
    `should be ${expected}, but is ${got}: ${failure?.reason ?? ''} ${failure?.message ?? ''}`,
  );
  const history = (status.attempts ?? []).map(({ reason, message }) => `${reason} (${message})`).join(', ');
  must(
    (status.attempt ?? 1) === attempts,
    `should have taken ${attempts} attempts, not ${status.attempt ?? 1}: ${history}`,
  );
  if (failure?.class === 'Test') {
    const fate = plan.fates[Math.min(attempts, plan.fates.length) - 1];
    must(fate?.kind === 'exits' && fate.code === status.exitCode, 'shows another exit code than it had');
  }
  return complaints;
}

/** How many attempts the job takes, and its end, when only its guests misbehave. */
function outcomeOf({ plan }: Subject): [number, string] {
  for (let attempt = 1; ; attempt += 1) {
    const fate = plan.fates[Math.min(attempt, plan.fates.length) - 1]!;
    if (!isInfrastructure(fate)) {
      if (fate.kind === 'exits') return [attempt, fate.code === 0 ? 'Complete' : 'Test'];
      return [attempt, 'Timeout'];
    }
    if (attempt > plan.infraRetryLimit) return [attempt, 'Infrastructure'];
    // What kept two instances from starting would keep a third from it.
    const before = plan.fates[Math.min(attempt - 1, plan.fates.length) - 1];
    if (fate.kind === 'does not start' && before?.kind === 'does not start')
      return [attempt, 'Infrastructure'];
  }
}

/** Within one attempt, what was once true stays so. */
function flapped(world: World, { uid }: Subject): string[] {
  const history = world.api.history.get(uid) ?? [];
  const complaints: string[] = [];
  for (const [index, after] of history.entries()) {
    const before = history[index - 1];
    if (!before || (before.attempt ?? 1) !== (after.attempt ?? 1)) continue;
    for (const { type, status } of before.conditions ?? []) {
      if (status !== 'True' || type === 'Reconciling') continue;
      if (!isTrue(after.conditions, type)) complaints.push(`condition ${type} was true and is not any more`);
    }
    if (outcome(before) !== undefined && outcome(before) !== outcome(after)) {
      complaints.push(`its outcome changed from ${outcome(before) ?? ''} to ${outcome(after) ?? ''}`);
    }
  }
  return complaints;
}

function outcome({ conditions, failure, exitCode }: CiJobStatus): string | undefined {
  const end = findCondition(conditions, 'Complete') ?? findCondition(conditions, 'Failed');
  return end && `${end.type} ${failure?.reason ?? ''} ${exitCode ?? ''}`;
}

/**
 * Nothing of a job that is over stays on any host. Only what is made at the request of a dead controller, after another
 * has let the job go, is seen too late for that: it is an orphan, which is swept up (orphan-sweep.ts).
 */
function leftOver(world: World): string[] {
  const uids = new Set([...world.api.jobs.values()].map(({ metadata }) => metadata.uid));
  const isOrphan = ({ name, config }: ModelInstance) =>
    world.madeByTheDead.has(name) && !uids.has(config['user.cijob.uid'] ?? '');
  return world.incus.flatMap(({ name, instances }) =>
    [...instances.values()]
      .filter((instance) => !isOrphan(instance))
      .map(
        (instance) => `${instance.name} of ${instance.config['user.cijob.name'] ?? ''} is left on ${name}`,
      ),
  );
}
