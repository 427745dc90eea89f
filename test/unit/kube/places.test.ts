import { describe, expect, it } from 'vitest';
import { Places } from '../../../controller/kube/places.ts';

describe('places', () => {
  const places = () => new Places({ ofUser: 3, ofNamespace: 4, most: 6, reserve: 3, least: 2 }, 'logs');
  const refusal = (work: () => unknown) => {
    try {
      work();
    } catch (error) {
      return error;
    }
    return undefined;
  };

  it('are few for one user, wherever they ask', () => {
    const here = places();
    for (const namespace of ['a', 'b', 'c']) here.enter('ann', namespace);
    expect(refusal(() => here.enter('ann', 'd'))).toMatchObject({
      code: 429,
      message: 'one user has 3 logs at once at most',
    });
    here.enter('bob', 'd');
  });

  it('are few in one namespace, whoever asks', () => {
    const here = places();
    for (const user of ['a', 'b', 'c', 'd']) here.enter(user, 'ci');
    expect(refusal(() => here.enter('e', 'ci'))).toMatchObject({
      code: 429,
      message: 'namespace ci has 4 logs open, the most at once',
    });
    here.enter('e', 'other');
  });

  it('are there for a namespace that has few, when the others have taken the rest', () => {
    const here = places();
    for (const user of ['a', 'b', 'c']) for (const namespace of ['x', 'y']) here.enter(user, namespace);
    expect(refusal(() => here.enter('d', 'x'))).toMatchObject({ code: 429 });
    here.enter('d', 'modest');
    here.enter('d', 'modest');
    expect(refusal(() => here.enter('e', 'modest'))).toMatchObject({
      message: 'the controller has 8 logs open, as many as it can',
    });
    here.enter('e', 'another');
    expect(refusal(() => here.enter('f', 'last'))).toMatchObject({ code: 429 });
  });

  it('are free again when they are given back', () => {
    const here = places();
    const leave = ['a', 'b', 'c'].map((namespace) => here.enter('ann', namespace));
    leave[0]?.();
    here.enter('ann', 'd');
    expect(refusal(() => here.enter('ann', 'e'))).toBeDefined();
  });
});
