import * as z from 'zod';
import { Condition } from './conditions.ts';

export const phases = [
  'Pending',
  'Provisioning',
  'Booting',
  'Running',
  'Collecting',
  'Succeeded',
  'Failed',
  'Cancelled',
] as const;
export const Phase = z.enum(phases);
export type Phase = z.infer<typeof Phase>;

export const failureClasses = ['Test', 'Timeout', 'Infrastructure', 'Config', 'Cancelled'] as const;
export const FailureClass = z.enum(failureClasses);
export type FailureClass = z.infer<typeof FailureClass>;

/** Bytes of the log's end that a status carries. */
export const excerptBytes = 4096;
/** Bytes of a log's end that are read for it: before the excerpt may stand the mark of a log that was cut. */
export const logTailBytes = 2 * excerptBytes;

/*
 * Unlike a spec, a status may hold fields that we do not know: those of a newer controller, before a downgrade.
 * They are left out, and the job goes on.
 */
const time = z.iso.datetime().meta({ format: 'date-time' });
const message = z.string().max(4096);
const reason = z.string().min(1).max(128);
const hostName = z.string().max(253);
const instanceName = z.string().max(63);

export const Failure = z.object({
  class: FailureClass.describe(
    'Whose fault it was: Test (the command failed), Timeout, Infrastructure (retried), Config (the manifest or the host), Cancelled.',
  ),
  reason: reason.describe('Why, in one CamelCase word.'),
  message: message.describe('Why, in a sentence.'),
  excerpt: z.string().max(excerptBytes).optional().describe('The end of the log.'),
});
export type Failure = z.infer<typeof Failure>;

export const Attempt = z.object({
  attempt: z.int().min(1).max(100).describe('Number of the attempt, from 1.'),
  host: hostName.optional().describe('The IncusHost that it was on.'),
  instance: instanceName.optional().describe('Its Incus instance.'),
  reason: reason.describe('Why it ended, in one CamelCase word.'),
  message: message.describe('Why it ended, in a sentence.'),
  finishedAt: time.describe('When it ended.'),
});
export type Attempt = z.infer<typeof Attempt>;

export const ArtifactNote = z.object({
  reason: reason.describe(
    'Why something is left out, in one CamelCase word: NoMatch, NotRegular, NameRefused, NamesAlike, Changed, SlowFile, FileLimit, SizeLimit, ArchiveFull, DepthLimit, NameLimit, CountLimit, WorkLimit, TimeLimit, SlowGuest; or why there is no archive: NoPlace, NotKept, NotRead.',
  ),
  message: message.describe('What is left out and why, in a sentence, with the first few paths.'),
});
export type ArtifactNote = z.infer<typeof ArtifactNote>;

export const CiJobStatus = z.object({
  observedGeneration: z
    .int()
    .min(0)
    .max(Number.MAX_SAFE_INTEGER)
    .optional()
    .describe('The metadata.generation that this status is about.'),
  phase: Phase.optional().describe('Where the job is, for people. Programs should read the conditions.'),
  host: hostName.optional().describe('The IncusHost that has the instance.'),
  instance: z
    .object({
      name: instanceName.describe('Its name on the host.'),
      imageFingerprint: z.string().max(64).optional().describe('The exact image that the alias led to.'),
    })
    .optional()
    .describe('The Incus instance of the current attempt.'),
  attempt: z.int().min(1).max(100).optional().describe('Number of the current attempt, from 1.'),
  exitCode: z.int().min(0).max(255).optional().describe('Exit code of the command.'),
  queuedAt: time
    .optional()
    .describe(
      'When the job began to wait for a slot: what queueTimeoutSeconds counts from. Not while it is suspended.',
    ),
  queue: z
    .object({
      position: z
        .int()
        .min(1)
        .max(Number.MAX_SAFE_INTEGER)
        .describe('Its place, from 1: the next to be admitted.'),
      length: z.int().min(1).max(Number.MAX_SAFE_INTEGER).describe('How many jobs wait, this one included.'),
      asOf: time.describe('When this was so. A new place is written once a minute at most.'),
    })
    .optional()
    .describe(
      'Where the job stands among those that wait for a slot, as of some moment. Only while it waits.',
    ),
  startTime: time.optional().describe('When the job was admitted.'),
  completionTime: time.optional().describe('When the outcome was known.'),
  duration: z.string().max(32).optional().describe('How long the command ran, for people: 1m32s.'),
  failure: Failure.optional().describe('Why the job failed.'),
  timings: z
    .array(
      z.object({
        phase: Phase.describe('The phase.'),
        startedAt: time.describe('When it began.'),
        finishedAt: time.optional().describe('When it ended. Missing while it lasts.'),
      }),
    )
    .max(64)
    .optional()
    .meta({ 'x-kubernetes-list-type': 'atomic' })
    .describe('When each phase of the current attempt began and ended.'),
  attempts: z
    .array(Attempt)
    .max(11)
    .optional()
    .meta({ 'x-kubernetes-list-type': 'atomic' })
    .describe('Earlier attempts that infrastructure failures ended.'),
  log: z
    .object({
      bytes: z.int().min(0).max(Number.MAX_SAFE_INTEGER).describe('Its size in the guest.'),
      truncated: z
        .boolean()
        .describe('Whether it reached its limit: its beginning and its last 4 KiB were kept.'),
    })
    .optional()
    .describe('The log of the command.'),
  artifacts: z
    .object({
      files: z.int().min(0).max(Number.MAX_SAFE_INTEGER).describe('How many files are in the archive.'),
      bytes: z
        .int()
        .min(0)
        .max(Number.MAX_SAFE_INTEGER)
        .describe('Size of the archive; 0 when there is none.'),
      skipped: z
        .int()
        .min(0)
        .max(Number.MAX_SAFE_INTEGER)
        .describe(
          'How many that match can be in no archive: links, empty files, what is no regular file, and names that are not safe on every system.',
        ),
      truncated: z
        .boolean()
        .describe('Whether a limit was reached, so that not all files that match are in it.'),
      notes: z
        .array(ArtifactNote)
        .max(16)
        .optional()
        .meta({ 'x-kubernetes-list-type': 'atomic' })
        .describe(
          'What is not in the archive, and why. Missing when everything that was asked for is in it.',
        ),
    })
    .optional()
    .describe(
      'The archive of the files that spec.artifacts names. Missing when it names none, or the command never ran.',
    ),
  conditions: z
    .array(Condition)
    .max(32)
    .optional()
    .meta({ 'x-kubernetes-list-type': 'map', 'x-kubernetes-list-map-keys': ['type'] })
    .describe('What is known about the job, in the order in which it happens.'),
});
export type CiJobStatus = z.infer<typeof CiJobStatus>;

/** The types of a CiJob's conditions, in the order in which they are listed. */
export const ciJobConditions = [
  'Admitted',
  'DevicesConfigured',
  'Started',
  'AgentReady',
  'RunnerStarted',
  'RunnerExited',
  'Collected',
  'InstanceDeleted',
  'Complete',
  'Failed',
  'Ready',
  'Reconciling',
  'Stalled',
] as const;
export type CiJobCondition = (typeof ciJobConditions)[number];
