import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { broken } from '../../support/model/laws.ts';
import { scenario, type Scenario } from '../../support/model/steps.ts';
import { World } from '../../support/model/world.ts';

// The real pool, engine, reconciler, plan, commands, inventory and store; only the connection below is a model.
vi.mock('../../../controller/hosts/host.ts', async () => ({
  Host: (await import('../../support/model/host.ts')).ModelHost,
}));

const runs = Number(process.env['MODEL_RUNS'] ?? 1_000);
const seed = process.env['MODEL_SEED'];

/** Plays a scenario out and returns what is wrong in the end, with the story that led there. */
async function play(what: Scenario): Promise<string | undefined> {
  const world = new World(what);
  try {
    for (const step of what.steps) await world.take(step);
    const rests = await world.calm();
    const complaints = rests ? broken(world) : ['the world does not come to rest'];
    if (complaints.length === 0) {
      const again = await world.lookAgain();
      if (again.length > 0) complaints.push(`looking again leads to: ${again.join(', ')}`);
    }
    if (complaints.length === 0) return undefined;
    return [...complaints, '', ...world.trace.slice(-300)].join('\n');
  } finally {
    world.close();
  }
}

describe('the controller, whatever goes wrong around it', () => {
  it(
    `runs a command once, tells the truth and leaves nothing (${runs} worlds; MODEL_RUNS sets how many)`,
    async () => {
      await fc.assert(
        fc.asyncProperty(scenario, async (what) => {
          expect(await play(what)).toBeUndefined();
        }),
        { numRuns: runs, ...(seed === undefined ? {} : { seed: Number(seed) }), endOnFailure: false },
      );
    },
    Math.max(120_000, runs * 100),
  );
});
