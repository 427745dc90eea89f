import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { commandLines, quote, requestOf, type Command } from '../../../controller/incus/commands.ts';

const launch = (environment: Record<string, string>) =>
  ({ verb: 'launch', instance: 'i', argv: ['env', 'runner'], environment }) as const satisfies Command;

describe('the two faces of a command', () => {
  it('show no value of the environment on a command line, and carry it in the request alone', () => {
    fc.assert(
      fc.property(fc.stringMatching(/^[A-Za-z0-9!$]{8,40}$/), (secret) => {
        const command = launch({ TOKEN: `s3cret-${secret}` });
        const lines = commandLines(command, 'default').join('\n');
        expect(lines).toContain('TOKEN=…');
        expect(lines).not.toContain(`s3cret-${secret}`);
        const { path, body } = requestOf(command, 'default');
        expect(path).not.toContain('s3cret');
        expect(body).toMatchObject({ environment: { TOKEN: `s3cret-${secret}` } });
      }),
    );
  });

  it('show a secret environment on no command line, neither ours nor one of the host', () => {
    const command = { ...launch({ TOKEN: 's3cret' }), secret: true };
    const { body } = requestOf(command, 'default');
    expect(JSON.stringify(body)).not.toContain('s3cret');
    expect(body).toMatchObject({ environment: {} });
    const lines = commandLines(command, 'default');
    expect(lines).toHaveLength(2);
    expect(lines[0]).toBe(
      "printf '%s\\0' TOKEN=… | incus file push - i/root/.pikaci-incus-environment --uid 0 --gid 0 --mode 0600 --project default",
    );
    expect(lines[1]).toMatch(/^incus exec i --project default -- .* env runner$/);
    expect(lines.join('\n')).not.toContain('s3cret');
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
