import { AttachedExec } from './attached-exec.ts';
import type { Exec } from './guest.ts';
import type { SimInstance } from './instance.ts';
import type { Operation } from './operations.ts';
import { Refusal } from './reply.ts';
import type { ExecBody } from './validation.ts';
import { OperationFailure, type Work } from './work.ts';

/** How long a command lives in a VM when its exec is neither recorded nor attached (measured: under a second). */
const unrecordedLife = 500;
/** How long an exec waits for its WebSockets, in milliseconds. */
const connectTime = 5_000;
/** What Incus sets in every command's environment. */
const ownEnvironment = {
  HOME: '/root',
  LANG: 'C.UTF-8',
  PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  USER: 'root',
};

/** `POST /1.0/instances/N/exec`: recorded, attached to WebSockets, or neither. */
export class Execs {
  readonly #work: Work;

  constructor(work: Work) {
    this.#work = work;
  }

  begin(instance: SimInstance, body: ExecBody): Operation {
    if (instance.power === 'Stopped') throw new Refusal(400, 'Instance is not running');
    return body['wait-for-websocket'] ? this.#attached(instance, body) : this.#detached(instance, body);
  }

  #detached(instance: SimInstance, body: ExecBody): Operation {
    const resources = { containers: [instance.url], instances: [instance.url] };
    return this.#work.begin('Executing command', instance.project.name, resources, (operation) => {
      const recorded = body['record-output'];
      const file = `exec_${operation.json.id}`;
      const base = `/1.0/instances/${instance.name}/logs/exec-output/${file}`;
      const exec = this.#run(instance, body, (code, output) => {
        if (!recorded) {
          end(operation, code, { return: code });
          return;
        }
        instance.outputs.set(`${file}.stdout`, output);
        instance.outputs.set(`${file}.stderr`, '');
        end(operation, code, { output: { '1': `${base}.stdout`, '2': `${base}.stderr` }, return: code });
      });
      if (exec && instance.type === 'virtual-machine' && !recorded)
        this.#work.clock.after(unrecordedLife, () => exec.kill());
    });
  }

  #attached(instance: SimInstance, body: ExecBody): Operation {
    let exec: Exec | undefined;
    const started = Promise.withResolvers<Exec | undefined>();
    const terminal = body.interactive ? { width: body.width ?? 0, height: body.height ?? 0 } : undefined;
    const print = (text: string) => attached.print(terminal ? text.replaceAll('\n', '\r\n') : text);
    const attached = new AttachedExec(body.interactive, {
      ready: () =>
        this.#work.later(0, operation, () => {
          const ended = (code: number) => {
            attached.end(() => end(operation, code, { ...metadata, return: code }));
          };
          exec = this.#run(instance, body, ended, print, terminal);
          started.resolve(exec);
        }),
      left: () => void started.promise.then((to) => to?.kill()),
      // What comes before the command has started waits for it.
      input: (data) =>
        void started.promise.then((to) => {
          if (!terminal) to?.input(data);
          else for (const key of data) type(key);
        }),
      endOfInput: () => void started.promise.then((to) => to?.endInput()),
      resize: (width, height) => Object.assign(terminal ?? {}, { width, height }),
    });
    // A terminal shows what is typed, hands it on by the line, and knows two keys.
    let line = '';
    const type = (key: string) => {
      if (key === '\u0004') exec?.endInput();
      else if (key === '\u0003') exec?.kill(130);
      else {
        const typed = key === '\r' ? '\n' : key;
        print(typed);
        line += typed;
        if (typed !== '\n') return;
        exec?.input(line);
        line = '';
      }
    };
    const metadata = {
      command: body.command,
      environment: { ...ownEnvironment, ...body.environment },
      fds: attached.fds,
      interactive: body.interactive,
    };
    const resources = { instances: [instance.url] };
    const operation = this.#work.begin(
      'Executing command',
      instance.project.name,
      resources,
      () =>
        this.#work.later(connectTime, operation, () => {
          if (!exec) throw new OperationFailure(500, 'Timed out waiting for websockets to connect');
        }),
      metadata,
    );
    operation.attached = attached;
    return operation;
  }

  /** Starts a command in the guest. Returns it if it goes on; `onExit` is called when it has ended. */
  #run(
    instance: SimInstance,
    body: ExecBody,
    onExit: (code: number, output: string) => void,
    onPrint?: (text: string) => void,
    terminal?: { width: number; height: number },
  ): Exec | undefined {
    if (body.command.length === 0)
      throw new OperationFailure(500, 'Failed to retrieve PID of executing child process');
    if (instance.agentOffline) throw new OperationFailure(500, "VM agent isn't currently running");
    const { command, environment, user, cwd } = body;
    const request = { command, environment: environment ?? {}, user, cwd, terminal };
    const exec = instance.guest.exec(request, (code, { output }) => onExit(code, output), onPrint);
    this.#work.lifecycle('instance-exec', instance, { command: body.command });
    if (!('code' in exec)) return exec;
    onExit(exec.code, '');
    return undefined;
  }
}

function end(operation: Operation, code: number, metadata: Record<string, unknown>): void {
  if (code === 127) operation.fail(400, 'Command not found', metadata);
  else if (code === 126) operation.fail(400, 'Command not executable', metadata);
  else operation.succeed(metadata);
}
