import { expect, test } from 'vitest';
import { LostHosts } from '../../../controller/cli/lost-hosts.ts';
import type { HostState } from '../../../controller/hosts/host.ts';
import { ManualClock } from '../../support/manual-clock.ts';

const up: HostState = { kind: 'up', since: 0, version: '', instanceTypes: [], project: {} };

function setting() {
  const clock = new ManualClock();
  const states = new Map<string, HostState>();
  const said: string[] = [];
  let losses = 0;
  const lost = new LostHosts({
    hosts: { state: (name) => states.get(name) },
    clock,
    grace: 60_000,
    say: (line) => said.push(line.replace(/\d\d:\d\d:\d\d/, 'TIME')),
    onLost: () => (losses += 1),
  });
  const becomes = (name: string, state: string) => {
    const before = states.get(name);
    const since = before?.kind === 'down' ? before.since : clock.now();
    states.set(name, state === 'up' ? up : { kind: 'down', since, reason: 'Unreachable', message: state });
    lost.changed(name);
  };
  return { clock, lost, said, becomes, losses: () => losses };
}

test('an absence is told once, however many tries fail, and so is its end', () => {
  const { clock, said, becomes, lost } = setting();
  becomes('a', 'up');
  becomes('a', 'ECONNRESET');
  clock.advance(2_000);
  becomes('a', 'ECONNREFUSED');
  clock.advance(3_000);
  becomes('a', 'up');
  becomes('a', 'up');
  clock.advance(600_000);
  expect(said).toEqual([
    'host a: connection lost (ECONNRESET); trying again until TIME',
    'host a: connected again, after 5.0s',
  ]);
  expect(lost.has('a')).toBe(false);
});

test('a host that stays away for the grace period counts as lost, from the last time it was seen', () => {
  const { clock, lost, said, becomes, losses } = setting();
  becomes('a', 'up');
  becomes('b', 'up');
  becomes('a', 'gone');
  clock.advance(59_999);
  expect([lost.has('a'), losses()]).toEqual([false, 0]);
  clock.advance(1);
  expect([lost.has('a'), lost.has('b'), losses()]).toEqual([true, false, 1]);
  expect(said.at(-1)).toBe('host a: given up, after 1m00s out of reach');
  becomes('b', 'gone');
  clock.advance(60_000);
  expect([lost.has('b'), losses()]).toEqual([true, 2]);
  becomes('a', 'up');
  expect([lost.has('a'), lost.has('b')]).toEqual([false, true]);
});

test('a host that was never connected is called so', () => {
  const { said, becomes } = setting();
  becomes('a', 'no route');
  expect(said).toEqual(['host a: not connected (no route); trying again until TIME']);
});

test('who wants to leave does not wait for the whole grace period', () => {
  const { clock, lost, becomes, losses } = setting();
  becomes('a', 'up');
  becomes('a', 'gone');
  clock.advance(30_000);
  lost.hurry(20_000);
  clock.advance(0);
  expect([lost.has('a'), losses()]).toEqual([true, 1]);
});

test('nothing is told after the end', () => {
  const { clock, lost, said, becomes, losses } = setting();
  becomes('a', 'gone');
  lost.close();
  clock.advance(600_000);
  expect([said.length, losses()]).toEqual([1, 0]);
});
