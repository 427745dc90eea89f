import { once } from 'node:events';
import { Agent, request, type IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import { buffer } from 'node:stream/consumers';
import WebSocket from 'ws';
import type { Ground } from './ground.ts';
import { benchJob } from './ground.ts';

/** An operation that has ended, as its event told. */
interface Ended {
  id: string;
  description: string;
  status: string;
  /** Of the event, by Incus's clock, in milliseconds since the epoch. */
  at: number;
}

/**
 * The floor: the requests that one job cannot do without, on Incus's local socket, by a client that does nothing else.
 * Shares no code with the controller.
 */
export class Floor implements Disposable {
  readonly #ground: Ground;
  readonly #agent: Agent;
  readonly #events: WebSocket;
  readonly #ended = new Map<string, Ended>();
  readonly #waiting = new Map<string, (ended: Ended) => void>();
  /** When the last command in an instance ended, by instance name. */
  readonly execEnds = new Map<string, number>();

  private constructor(ground: Ground, agent: Agent, events: WebSocket) {
    this.#ground = ground;
    this.#agent = agent;
    this.#events = events;
    events.on('message', (data: Buffer) => this.#take(data));
  }

  static async start(ground: Ground): Promise<Floor> {
    const { socketPath } = ground.incus;
    const agent = new Agent({ keepAlive: true });
    const url = `ws://incus/1.0/events?type=operation&project=${ground.project}`;
    const events = new WebSocket(url, { createConnection: () => connect(socketPath) });
    const floor = new Floor(ground, agent, events);
    await once(events, 'open');
    return floor;
  }

  /** One job, and the removal of its instance. Returns the milliseconds from the first request to the read result. */
  async run(name: string): Promise<number> {
    const { project, fingerprint } = this.#ground;
    const at = `/1.0/instances/${name}`;
    const { cpu, memory } = benchJob.spec.instance;
    const started = performance.now();
    await this.#operation('POST', '/1.0/instances', {
      name,
      type: 'container',
      source: { type: 'image', fingerprint },
      profiles: ['default'],
      config: { 'limits.cpu': String(cpu), 'limits.memory': memory },
      start: true,
    });
    const { command, timeoutSeconds } = benchJob.spec;
    await this.#operation('POST', `${at}/exec`, {
      command: [
        'env',
        `PIKACI_INCUS_GUEST_COMMAND=${command}`,
        `PIKACI_INCUS_TIMEOUT_SECS=${timeoutSeconds}`,
        'PIKACI_INCUS_RUN_AS_ROOT=0',
        '/run/current-system/sw/bin/pikaci-incus-run',
      ],
      'record-output': true,
      'wait-for-websocket': false,
      interactive: false,
    });
    const reply = await this.#send('GET', `${at}/files?path=/artifacts/result.json`);
    const result = JSON.parse((await buffer(reply)).toString()) as { status: string };
    const took = performance.now() - started;
    if (result.status !== 'passed') throw new Error(`the floor's job ended as ${result.status}`);
    await this.#operation('PUT', `${at}/state?project=${project}`, { action: 'stop', force: true });
    await this.#operation('DELETE', at);
    return took;
  }

  [Symbol.dispose](): void {
    this.#events.terminate();
    this.#agent.destroy();
  }

  /** Sends a request that begins an operation, and waits for the event that it has ended well. */
  async #operation(method: string, path: string, body?: object): Promise<void> {
    const reply = await this.#send(method, path, body);
    const { metadata, error } = JSON.parse((await buffer(reply)).toString()) as {
      metadata?: { id: string };
      error: string;
    };
    if (!metadata) throw new Error(`${method} ${path}: ${error}`);
    const { id } = metadata;
    const ended =
      this.#ended.get(id) ?? (await new Promise<Ended>((resolve) => this.#waiting.set(id, resolve)));
    this.#waiting.delete(id);
    if (ended.status !== 'Success')
      throw new Error(`${method} ${path}: the operation ended as ${ended.status}`);
  }

  async #send(method: string, path: string, body?: object): Promise<IncomingMessage> {
    const { incus, project } = this.#ground;
    const url = path.includes('project=')
      ? path
      : `${path}${path.includes('?') ? '&' : '?'}project=${project}`;
    const outgoing = request({ socketPath: incus.socketPath, agent: this.#agent, method, path: url });
    outgoing.end(body ? JSON.stringify(body) : undefined);
    const [reply] = (await once(outgoing, 'response')) as [IncomingMessage];
    return reply;
  }

  #take(data: Buffer): void {
    const { timestamp, metadata } = JSON.parse(data.toString()) as {
      timestamp: string;
      metadata: {
        id: string;
        description: string;
        status: string;
        status_code: number;
        resources?: { instances?: string[] };
      };
    };
    const { id, description, status, status_code: code, resources } = metadata;
    if (code < 200 || this.#ended.has(id)) return;
    const ended = { id, description, status, at: Date.parse(timestamp) };
    this.#ended.set(id, ended);
    const instance = resources?.instances?.[0]?.split('?')[0]?.split('/').at(-1);
    if (instance !== undefined && description === 'Executing command') this.execEnds.set(instance, ended.at);
    this.#waiting.get(id)?.(ended);
  }
}
