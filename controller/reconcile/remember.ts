import type { Command } from '../incus/commands.ts';
import type { CommandOutcome } from '../incus/outcome.ts';
import type { Memory } from './observed.ts';

/** Notes what a command brought. */
export function remember(memory: Memory, command: Command, outcome: CommandOutcome, now: number): void {
  if (command.verb === 'probe') memory.probedAt = now;
  switch (outcome.kind) {
    case 'refused':
    case 'failed':
    case 'unknown': {
      const { verb } = command;
      const before = memory.problem?.verb === verb ? memory.problem : { count: 0, since: now };
      memory.problem = { verb, outcome, count: before.count + 1, since: before.since, at: now };
      return;
    }
    case 'resolved':
      memory.resolved = { fingerprint: outcome.fingerprint, sources: outcome.sources };
      break;
    case 'launched':
      memory.operation = outcome.operation;
      memory.launches += 1;
      memory.launchedAt = now;
      memory.collected = undefined;
      break;
    case 'probed':
      memory.agentAnswered ||= outcome.ready;
      break;
    case 'collected':
      memory.collected = outcome.collected;
      break;
    case 'gone':
      memory.gone = command.instance;
      break;
    case 'done':
      if (memory.gone === command.instance) memory.gone = undefined;
      break;
  }
  memory.problem = undefined;
}
