import { afterEach, describe, test } from 'vitest';
import { speakTo } from '../support/incus-endpoint.ts';
import { type Endpoint, scenarios } from '../support/incus-scenarios.ts';
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
function endpoint(): Endpoint {
  const sim = simulated();
  sim.host.directory('/etc');
  return {
    ...speakTo(() => sim.connect()),
    image: sim.store.addImage('bb'),
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
});
