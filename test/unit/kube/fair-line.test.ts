import { setImmediate as turn } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { FairLine } from '../../../controller/kube/fair-line.ts';

describe('a fair line', () => {
  function line(limits: Partial<ConstructorParameters<typeof FairLine>[0]> = {}) {
    const fair = new FairLine({ atOnce: 3, ofClient: 2, waiting: 10, ...limits });
    const begun: string[] = [];
    const ends = new Map<string, () => void>();
    const ask = (client: string, work: string) =>
      fair.run(client, () => {
        begun.push(work);
        return new Promise<string>((resolve) => ends.set(work, () => resolve(work)));
      });
    const end = async (work: string) => {
      ends.get(work)?.();
      await turn();
    };
    return { fair, begun, ask, end };
  }

  it('begins so much at once, of one client less, and the rest when there is room', async () => {
    const { begun, ask, end } = line();
    const all = ['a1', 'a2', 'a3'].map((work) => ask('a', work));
    void ask('b', 'b1');
    void ask('b', 'b2');
    await turn();
    expect(begun).toEqual(['a1', 'a2', 'b1']);
    await end('a1');
    expect(begun).toEqual(['a1', 'a2', 'b1', 'a3']);
    await end('a2');
    expect(begun.at(-1)).toBe('b2');
    await end('a3');
    expect(await Promise.all(all)).toEqual(['a1', 'a2', 'a3']);
  });

  it('lets one who comes last wait for one turn of each client, not for all that wait', async () => {
    const { begun, ask, end } = line({ atOnce: 1 });
    for (let index = 0; index < 9; index += 1) void ask('flood', `flood ${index}`);
    void ask('late', 'late');
    await turn();
    await end('flood 0');
    await end('flood 1');
    expect(begun).toEqual(['flood 0', 'flood 1', 'late']);
  });

  it('refuses a client that has too much waiting, and nobody else', async () => {
    const { ask } = line({ atOnce: 1, waiting: 2 });
    for (const work of ['1', '2', '3']) void ask('flood', work);
    await expect(ask('flood', '4')).rejects.toMatchObject({ code: 429 });
    void ask('other', '5');
  });

  it('goes on after work that failed', async () => {
    const { fair } = line({ atOnce: 1 });
    await expect(fair.run('a', () => Promise.reject(new Error('broken')))).rejects.toThrow('broken');
    expect(await fair.run('a', () => Promise.resolve('done'))).toBe('done');
  });
});
