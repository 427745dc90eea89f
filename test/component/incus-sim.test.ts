import { afterEach, describe, test } from 'vitest';
import { speakTo } from '../support/incus-endpoint.ts';
import { scenarios } from '../support/incus-scenarios/all.ts';
import { killScenario } from '../support/incus-scenarios/kill.ts';
import type { Endpoint } from '../support/incus-scenarios/scenario.ts';
import { IncusSim } from '../support/incus-sim/sim.ts';

const sims: IncusSim[] = [];
afterEach(() => {
  for (const sim of sims.splice(0)) sim.close();
});

function simulated(options?: ConstructorParameters<typeof IncusSim>[0]): IncusSim {
  const sim = new IncusSim(options);
  sims.push(sim);
  return sim;
}

/** A simulated Incus as the scenarios want it. */
function endpoint(sim = simulated()): Endpoint {
  sim.host.directory('/etc');
  return {
    ...speakTo(() => sim.connect()),
    image: sim.store.addImage('bb', 'container', ['/bin/link']),
    imageLink: '/bin/link',
    source: sim.host.directory('/allowed/source'),
    linkOut: sim.host.symlink('/allowed/link', '/etc'),
    parent: '/allowed',
    addProject: (name, config) => {
      sim.store.addProject(name, config);
      return Promise.resolve();
    },
  };
}

describe('the simulated Incus does what the real one was seen to do', () => {
  for (const scenario of scenarios) test(scenario.name, () => scenario.run(endpoint()));
  test(killScenario.name, async () => {
    // Slow enough to be killed half-way through.
    const sim = simulated({ timings: { create: 100 } });
    const kill = () => {
      sim.kill();
      return Promise.resolve();
    };
    await killScenario.run(endpoint(sim), { kill, restart: () => sim.restart() });
  });
});
