import type { IncomingMessage } from 'node:http';
import type WebSocket from 'ws';
import * as z from 'zod';
import { filePath, instancePath } from './commands.ts';
import {
  environmentFile,
  environmentFileHeaders,
  environmentFilePath,
  type Variables,
} from './environment-file.ts';
import { IncusError, kindOfStatus } from './errors.ts';
import { maxEventBytes } from './events.ts';
import type { HttpPipe, HttpRequest } from './http.ts';
import type { ReadBudget } from './read-budget.ts';
import {
  Envelope,
  Image,
  ImageAlias,
  Instance,
  InstanceState,
  Network,
  NetworkAcl,
  Operation,
  OperationList,
  Profile,
  Project,
  Resources,
  Server,
  StoragePool,
  StoragePoolResources,
} from './schemas.ts';

/** Silence on a request that Incus answers at once, in milliseconds. */
const answerTimeout = 30_000;
/** How long one request waits for an operation to end, in seconds. */
const longestWait = 5;
const kibibyte = 1024;
/** An answer of a few KiB, as the size of a file, a result or a list of names is. */
const shortRead: ReadBudget = {
  longestMs: 30_000,
  graceMs: answerTimeout,
  leastBytesPerSecond: 16 * kibibyte,
};
/** The content of a file of any size. */
const fileRead: ReadBudget = { ...shortRead, longestMs: 5 * 60_000 };
const maxAnswer = 1024 * kibibyte;
/** The log of one start is a few KiB. */
const maxInstanceLog = 64 * kibibyte;
/** A list of some ten thousand instances. */
const maxList = 64 * 1024 * kibibyte;

/** What a path in a guest turned out to be. Only a regular file with content is ever read. */
export type GuestFile =
  { kind: 'file'; size: number; bytes: Buffer } | { kind: 'missing' } | { kind: 'unreadable'; what: string };

/** What a path in a guest is. A FIFO, a socket and a device show as files without content. */
export interface GuestStat {
  /** `file`, `directory`, `symlink`, or whatever else Incus says. */
  type: string;
  size: number;
  /** When it was last changed, in milliseconds since the epoch, as the guest says; undefined when Incus does not tell. */
  modifiedAt?: number | undefined;
}

type RawRequest = Pick<HttpRequest, 'method' | 'path' | 'body' | 'headers' | 'signal' | 'guest'>;

/** Which part of a file to read: its first or its last bytes. */
export type Part = { first: number } | { last: number };

/**
 * Incus's REST API, as far as we use it, in one project. Every answer is size-capped and parsed; every failure is an
 * {@link IncusError}.
 */
export class IncusClient {
  readonly #pipe: HttpPipe;
  readonly #project: string;
  readonly #onRequest: (method: string, path: string) => void;

  constructor(
    pipe: HttpPipe,
    project: string,
    onRequest: (method: string, path: string) => void = () => undefined,
  ) {
    this.#pipe = pipe;
    this.#project = project;
    this.#onRequest = onRequest;
  }

  server(): Promise<Server> {
    return this.#get(Server, '/1.0');
  }

  project(): Promise<Project> {
    return this.#get(Project, `/1.0/projects/${encodeURIComponent(this.#project)}`);
  }

  /** Every instance of the project. */
  instances(): Promise<Instance[]> {
    return this.#list(Instance, 'instances');
  }

  instance(name: string): Promise<Instance> {
    return this.#get(Instance, instancePath(this.#project, name));
  }

  /** Every operation of the project that runs, or ended within the last 5 s. */
  async operations(): Promise<Operation[]> {
    const byStatus = await this.#get(
      OperationList,
      `/1.0/operations?recursion=1&${this.#inProject()}`,
      maxList,
    );
    return Object.values(byStatus).flat();
  }

  /** Number of processes in the instance: -1 in a VM whose agent does not answer. */
  async processes(name: string, signal?: AbortSignal): Promise<number> {
    const path = instancePath(this.#project, name, '/state');
    return (await this.#get(InstanceState, path, maxAnswer, name, signal)).processes;
  }

  /** The image that an alias or a fingerprint leads to, by its full fingerprint. Rejects with NotFound. */
  async image(reference: string): Promise<Image> {
    const images = '/1.0/images';
    const name = encodeURIComponent(reference);
    try {
      const alias = await this.#get(ImageAlias, `${images}/aliases/${name}?${this.#inProject()}`);
      return { fingerprint: alias.target, type: alias.type };
    } catch (error) {
      if (!(error instanceof IncusError && error.kind === 'NotFound')) throw error;
    }
    return this.#get(Image, `${images}/${name}?${this.#inProject()}`);
  }

  /** Whether the project has a profile of this name. */
  async hasProfile(name: string): Promise<boolean> {
    try {
      await this.#get(z.object({}), `/1.0/profiles/${encodeURIComponent(name)}?${this.#inProject()}`);
      return true;
    } catch (error) {
      if (error instanceof IncusError && error.kind === 'NotFound') return false;
      throw error;
    }
  }

  /** Every storage pool. */
  storagePools(): Promise<StoragePool[]> {
    return this.#list(StoragePool, 'storage-pools');
  }

  /** Bytes of a storage pool, be they in use or not. */
  async poolBytes(pool: string): Promise<number> {
    const path = `/1.0/storage-pools/${encodeURIComponent(pool)}/resources`;
    return (await this.#get(StoragePoolResources, path)).space.total;
  }

  /** CPUs, and bytes of memory, of the machine. */
  resources(): Promise<Resources> {
    return this.#get(Resources, '/1.0/resources', maxList);
  }

  /** Every profile that instances of the project may have. */
  profiles(): Promise<Profile[]> {
    return this.#list(Profile, 'profiles');
  }

  /** Every network that the project may use, and the host's own interfaces. */
  networks(): Promise<Network[]> {
    return this.#list(Network, 'networks');
  }

  /** Every ACL of those networks. */
  networkAcls(): Promise<NetworkAcl[]> {
    return this.#list(NetworkAcl, 'network-acls');
  }

  /** Sends a request that starts an operation, and returns the operation as it began. */
  async start(request: Pick<HttpRequest, 'method' | 'path' | 'body'>): Promise<Operation> {
    const envelope = await this.#call(request, maxAnswer);
    return parse(Operation, envelope.metadata, request);
  }

  /** What a path of a guest is, without following it if it is a link; undefined when there is nothing. */
  async stat(instance: string, path: string, signal?: AbortSignal): Promise<GuestStat | undefined> {
    const url = filePath(this.#project, instance, path);
    const { status, headers } = await this.#ofGuest(instance, { method: 'HEAD', path: url, signal }, 0);
    if (status === 404) return undefined;
    // An answer to HEAD has no body that could say more.
    if (status >= 400) throw new IncusError(kindOfStatus(status), `reading ${path}: HTTP ${status}`, status);
    const size = Number(headers['content-length'] ?? 0);
    return {
      type: header(headers['x-incus-type']) ?? 'unknown',
      size: size > 0 ? size : 0,
      modifiedAt: timeOf(header(headers['x-incus-modified'])),
    };
  }

  /** Puts the environment that a launch takes from its file (environment-file.ts) into a guest. */
  async putEnvironment(instance: string, environment: Variables, signal?: AbortSignal): Promise<void> {
    const request = {
      signal,
      method: 'POST' as const,
      path: filePath(this.#project, instance, environmentFilePath),
      headers: environmentFileHeaders,
      body: environmentFile(environment),
    };
    const { status, body } = await this.#ofGuest(instance, request, maxAnswer);
    if (status < 200 || status > 299) throw errorOf(status, body, request.path);
  }

  /** The end of a log that Incus keeps of an instance, such as `lxc.log`; nothing where there is none. */
  async instanceLog(instance: string, file: string): Promise<string> {
    const path = instancePath(this.#project, instance, `/logs/${encodeURIComponent(file)}`);
    const headers = { range: `bytes=-${maxInstanceLog}` };
    const { status, body } = await this.#raw({ method: 'GET', path, headers }, maxAnswer);
    if (status === 404) return '';
    if (status !== 200 && status !== 206) throw errorOf(status, body, path);
    return body.toString('utf8');
  }

  /**
   * Reads a file of a guest. HEAD comes first, because a GET of a FIFO never returns and leaves Incus's file server
   * stuck (measured on 6.0.4), and a FIFO shows as an empty file there: nothing without content is read.
   */
  async readFile(instance: string, path: string, part: Part, signal?: AbortSignal): Promise<GuestFile> {
    const found = await this.stat(instance, path, signal);
    if (!found) return { kind: 'missing' };
    const { type: what, size } = found;
    if (what !== 'file') return { kind: 'unreadable', what };
    if (size === 0) return { kind: 'file', size: 0, bytes: Buffer.alloc(0) };
    const url = filePath(this.#project, instance, path);
    const limit = 'first' in part ? part.first : part.last;
    const range = 'first' in part ? `bytes=0-${limit - 1}` : `bytes=-${limit}`;
    const request = { method: 'GET' as const, path: url, headers: { range }, signal };
    // The end of a log is content as any other, of which a job may have written anything.
    const got = await this.#ofGuest(instance, request, limit, 'last' in part);
    if (got.status === 404) return { kind: 'missing' };
    if (got.status !== 200 && got.status !== 206) throw errorOf(got.status, got.body, url);
    return { kind: 'file', size: Math.max(size, got.body.length), bytes: got.body };
  }

  /** A file of a guest from byte `offset` on, as a stream; undefined when there is nothing there (yet). */
  async openFile(
    instance: string,
    path: string,
    offset: number,
    signal?: AbortSignal,
  ): Promise<IncomingMessage | undefined> {
    const found = await this.stat(instance, path, signal);
    if (found?.type !== 'file' || found.size <= offset) return undefined;
    return this.openRange(instance, path, offset, found.size, signal);
  }

  /**
   * The bytes from `from` up to `to` of what {@link stat} has shown to be a file with that much content, as a stream.
   * Fewer when it has shrunk since; undefined when it is not there any more, or has become something else.
   */
  async openRange(
    instance: string,
    path: string,
    from: number,
    to: number,
    signal?: AbortSignal,
  ): Promise<IncomingMessage | undefined> {
    const url = filePath(this.#project, instance, path);
    this.#onRequest('GET', url);
    const reply = await this.#pipe.open({
      method: 'GET',
      path: url,
      headers: { range: `bytes=${from}-${to - 1}` },
      signal,
      maxBytes: 0,
      timeout: answerTimeout,
      guest: { instance, budget: fileRead, long: true },
    });
    const isFile = header(reply.headers['x-incus-type']) === 'file';
    if (isFile && (reply.statusCode === 206 || (reply.statusCode === 200 && from === 0))) return reply;
    reply.destroy();
    return undefined;
  }

  /** The names in what {@link stat} has shown to be a directory; none when it is none any more. */
  async list(instance: string, path: string, signal?: AbortSignal): Promise<string[]> {
    const url = filePath(this.#project, instance, path);
    const got = await this.#ofGuest(instance, { method: 'GET', path: url, signal }, maxAnswer);
    if (got.status === 404) return [];
    if (got.status !== 200) throw errorOf(got.status, got.body, url);
    if (header(got.headers['x-incus-type']) !== 'directory') return [];
    const names = parse(Envelope, jsonOf(got.body), { method: 'GET', path: url }).metadata;
    return parse(z.array(z.string()), names, { method: 'GET', path: url });
  }

  /** Opens the stream of lifecycle and operation events. */
  events(): Promise<WebSocket> {
    const path = `/1.0/events?type=lifecycle,operation&${this.#inProject()}`;
    this.#onRequest('GET', path);
    return this.#pipe.webSocket(path, maxEventBytes);
  }

  /** Opens a WebSocket of an operation, such as the output of an exec. */
  operationSocket(operation: string, secret: string): Promise<WebSocket> {
    const path = `/1.0/operations/${encodeURIComponent(operation)}/websocket`;
    // Whoever hears of requests may log them; the secret opens the socket to anybody.
    this.#onRequest('GET', path);
    return this.#pipe.webSocket(`${path}?secret=${encodeURIComponent(secret)}`, maxEventBytes);
  }

  /**
   * Waits a while for an operation on a guest to end, and returns it as it ended; undefined: it goes on. When it ends is
   * up to the guest, so this takes none of the streams for requests.
   */
  async operationEnd(instance: string, operation: string): Promise<Operation | undefined> {
    const path = `/1.0/operations/${encodeURIComponent(operation)}/wait?timeout=${longestWait}`;
    return (await this.#get(Operation.nullish(), path, maxAnswer, instance)) ?? undefined;
  }

  #inProject(): string {
    return `project=${encodeURIComponent(this.#project)}`;
  }

  #list<T>(schema: z.ZodType<T>, collection: string): Promise<T[]> {
    return this.#get(z.array(schema), `/1.0/${collection}?recursion=1&${this.#inProject()}`, maxList);
  }

  async #get<T>(
    schema: z.ZodType<T>,
    path: string,
    maxBytes = maxAnswer,
    guest?: string,
    signal?: AbortSignal,
  ): Promise<T> {
    const envelope = await this.#call({ method: 'GET', path, signal }, maxBytes, guest);
    return parse(schema, envelope.metadata, { method: 'GET', path });
  }

  async #call(
    request: Pick<HttpRequest, 'method' | 'path' | 'body' | 'signal'>,
    maxBytes: number,
    guest?: string,
  ): Promise<Envelope> {
    const reply = await (guest === undefined
      ? this.#raw(request, maxBytes)
      : this.#ofGuest(guest, request, maxBytes));
    if (reply.status < 200 || reply.status > 299) throw errorOf(reply.status, reply.body, request.path);
    return parse(Envelope, jsonOf(reply.body), request);
  }

  /** A request whose answer is in a guest's hands. */
  #ofGuest(instance: string, request: RawRequest, maxBytes: number, long = false) {
    return this.#raw({ ...request, guest: { instance, budget: shortRead, long } }, maxBytes);
  }

  #raw(request: RawRequest, maxBytes: number) {
    this.#onRequest(request.method, request.path);
    return this.#pipe.request({ ...request, maxBytes, timeout: answerTimeout });
  }
}

function parse<T>(schema: z.ZodType<T>, value: unknown, request: { method: string; path: string }): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const where = issue?.path.join('.') ?? '';
  throw new IncusError(
    'Garbled',
    `${request.method} ${pathOnly(request.path)}: ${where}: ${issue?.message ?? ''}`,
  );
}

function jsonOf(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString('utf8'));
  } catch {
    return undefined;
  }
}

function errorOf(status: number, body: Buffer, path: string): IncusError {
  const said = Envelope.safeParse(jsonOf(body)).data?.error ?? '';
  const message = said === '' ? `HTTP ${status}` : said.slice(0, 1024);
  return new IncusError(kindOfStatus(status), `${pathOnly(path)}: ${message}`, status);
}

function pathOnly(path: string): string {
  return path.split('?')[0] ?? path;
}

/** A time as Go prints it, in UTC: `2026-01-02 03:04:05 +0000 UTC`. */
function timeOf(text = ''): number | undefined {
  const [, date, time] = /^(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)(?:\.\d+)? \+0000 UTC$/.exec(text) ?? [];
  const at = Date.parse(`${date ?? ''}T${time ?? ''}Z`);
  return Number.isNaN(at) ? undefined : at;
}

function header(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value[0] : value;
}
