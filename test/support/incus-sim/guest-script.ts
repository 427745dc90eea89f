import type { GuestEntry } from './guest-files.ts';

/** What a guest does in a test. Times are in milliseconds of the simulator's clock. */
export interface GuestScript {
  /** From the instance's start until commands can run (in a VM: until the agent answers). Infinity: never. Default 0. */
  bootMs?: number;
  /** The image announces that it is ready (a PATCH to /dev/incus/sock) when booted. Default false. */
  announcesReady?: boolean;
  /** What stands in the image already. */
  files?: Readonly<Record<string, GuestEntry>>;
  /** False: the image has no runner, and a launch fails with "Command not found". Default true. */
  hasRunner?: boolean;
  /** What the job's command does, each time it is really run. */
  job?: JobScript | ((launch: Launch) => JobScript);
}

/** A launch of the runner, as the guest sees it. */
export interface Launch {
  command: string;
  timeoutSeconds: number;
  runAsRoot: boolean;
  expectMounts: readonly string[];
  /** Environment of the exec request, which is the job's. */
  environment: Readonly<Record<string, string>>;
}

/** How one run of the command goes. Without any of it: prints nothing, and ends with 0 after 1 ms. */
export interface JobScript {
  /** How long it runs. Infinity: until its timeout. */
  runMs?: number;
  /** It ends when this resolves, or at its timeout, instead of after `runMs`. */
  until?: Promise<unknown>;
  exitCode?: number;
  /** What it prints: all at its start, or piece by piece. */
  log?: string | readonly LogPiece[];
  /** What stands at /artifacts/guest.log in the end instead, if the guest is hostile. */
  logEntry?: GuestEntry;
  /** What stands at /artifacts/result.json in the end instead of the truth. */
  resultEntry?: GuestEntry | 'missing';
  /** The runner itself could not begin: a result with this `bootstrap_error`, and the command never ran. */
  bootstrapError?: string;
  /** At the end of `runMs` the guest does this instead of ending: reboot, power off, or lose its runner. */
  then?: 'reboot' | 'poweroff' | 'vanish';
}

export interface LogPiece {
  atMs: number;
  text: string;
}

/** Where the guest contract puts things. */
export const runnerPath = '/run/current-system/sw/bin/pikaci-incus-run';
export const resultPath = '/artifacts/result.json';
export const logPath = '/artifacts/guest.log';
