import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { commandLines, quote, requestOf, type Command } from '../../../controller/incus/commands.ts';

const launch = (variables: Record<string, string>) =>
  ({
    verb: 'launch',
    instance: 'i',
    argv: ['env', 'PIKACI_INCUS_GUEST_COMMAND=make all', 'runner'],
    parameters: { PIKACI_INCUS_EXPECT_MOUNTS: '/a:/b' },
    environment: new Map(Object.entries(variables).map(([name, value]) => [name, Buffer.from(value)])),
  }) as const satisfies Command;

describe('the two faces of a command', () => {
  it('show no variable of a job: neither ours nor the request that starts it, which becomes arguments on the host', () => {
    fc.assert(
      fc.property(fc.stringMatching(/^[A-Za-z0-9!$]{8,40}$/), (value) => {
        const command = launch({ TOKEN: `s3cret-${value}` });
        const { path, body } = requestOf(command, 'default');
        expect(`${path} ${JSON.stringify(body)}`).not.toContain('TOKEN');
        expect(body).toMatchObject({
          command: command.argv,
          environment: {
            PIKACI_INCUS_EXPECT_MOUNTS: '/a:/b',
            PIKACI_INCUS_ENVIRONMENT_FILE: '/root/.pikaci-incus-environment',
          },
        });
        expect(commandLines(command, 'default')).toEqual([
          "printf '%s\\0' TOKEN=… '' | incus file push - i/root/.pikaci-incus-environment --uid 0 --gid 0 --mode 0600 --project default",
          "incus exec i --project default --env PIKACI_INCUS_EXPECT_MOUNTS=/a:/b --env PIKACI_INCUS_ENVIRONMENT_FILE=/root/.pikaci-incus-environment -- env 'PIKACI_INCUS_GUEST_COMMAND=make all' runner",
        ]);
      }),
    );
  });

  it('need no file where a job has no variables', () => {
    expect(requestOf(launch({}), 'default').body).toMatchObject({
      environment: { PIKACI_INCUS_EXPECT_MOUNTS: '/a:/b' },
    });
    expect(commandLines(launch({}), 'default')).toHaveLength(1);
  });

  it('launch recorded and detached: in a VM nothing else outlives a second', () => {
    expect(requestOf(launch({}), 'p')).toMatchObject({
      method: 'POST',
      path: '/1.0/instances/i/exec?project=p',
      body: { 'record-output': true, 'wait-for-websocket': false, interactive: false },
    });
  });

  it('stop by force, delete by name, in the project', () => {
    expect(requestOf({ verb: 'stop', instance: 'i', uid: 'u' }, 'a b')).toMatchObject({
      method: 'PUT',
      path: '/1.0/instances/i/state?project=a%20b',
      body: { action: 'stop', force: true },
    });
    expect(commandLines({ verb: 'delete', instance: 'i', uid: 'u' }, 'p')).toEqual([
      'incus delete i --project p',
    ]);
  });

  it('quote any word so that a shell gives it back', () => {
    expect(quote(`it's $HOME`)).toBe(`'it'\\''s $HOME'`);
    expect(quote('')).toBe(`''`);
    expect(quote('a/b:c=d')).toBe('a/b:c=d');
  });
});
