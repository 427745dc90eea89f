import { describe, expect, it } from 'vitest';
import {
  channels,
  endMessage,
  endOfInputMessage,
  framed,
  parseClientMessage,
  parseEnd,
  resizeMessage,
  type ShellEnd,
} from '../../../controller/kube/shell-protocol.ts';

describe('the protocol of a shell', () => {
  it('tells input, a new size and the end of input apart', () => {
    const input = framed(channels.stdin, Buffer.from('ls\r'));
    expect(parseClientMessage(input)).toEqual({ kind: 'input', data: Buffer.from('ls\r') });
    const size = { width: 120, height: 40 };
    expect(parseClientMessage(resizeMessage(size))).toEqual({ kind: 'resize', size });
    expect(resizeMessage(size).toString()).toBe('\u0004{"Width":120,"Height":40}');
    expect(parseClientMessage(endOfInputMessage())).toEqual({ kind: 'endOfInput' });
    expect([...endOfInputMessage()]).toEqual([255, 0]);
  });

  it('takes nothing else from a client', () => {
    const others = [
      Buffer.alloc(0),
      framed(channels.stdout, Buffer.from('forged')),
      framed(channels.error, Buffer.from('{}')),
      framed(channels.resize, Buffer.from('{"Width":0,"Height":40}')),
      framed(channels.resize, Buffer.from('{"Width":1e9,"Height":40}')),
      framed(channels.resize, Buffer.from('no JSON')),
      framed(channels.close, Buffer.of(channels.stdout)),
      Buffer.of(7, 7),
    ];
    for (const other of others) expect(parseClientMessage(other), other.toString('hex')).toBeUndefined();
  });

  it('says how a command ended as pods/exec does', () => {
    const ends: ShellEnd[] = [
      { kind: 'exited', code: 0 },
      { kind: 'exited', code: 7 },
      { kind: 'exited', code: 255 },
      { kind: 'broken', reason: 'InstanceGone', message: 'the job is over' },
    ];
    for (const end of ends) expect(parseEnd(endMessage(end).subarray(1))).toEqual(end);
    expect(JSON.parse(endMessage({ kind: 'exited', code: 7 }).subarray(1).toString())).toMatchObject({
      kind: 'Status',
      status: 'Failure',
      reason: 'NonZeroExitCode',
      details: { causes: [{ reason: 'ExitCode', message: '7' }] },
    });
  });

  it('takes no end that it cannot read for a success', () => {
    for (const said of [
      '',
      '{}',
      '{"status":"Failure","details":{"causes":[{"reason":"ExitCode","message":"x"}]}}',
    ])
      expect(parseEnd(Buffer.from(said)).kind, said).toBe('broken');
  });
});
