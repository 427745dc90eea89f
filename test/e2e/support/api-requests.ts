import { readFileSync } from 'node:fs';
import { Agent, request } from 'node:https';

/** The API server's answer. */
export interface ApiAnswer {
  status: number;
  /** `message` of a metav1.Status, or empty. */
  message: string;
}

interface Kubeconfig {
  clusters: { cluster: { server: string; 'certificate-authority-data': string } }[];
  users: { user: { 'client-certificate-data': string; 'client-key-data': string } }[];
}

/** Plain requests to an API server over one kept connection: hundreds a second, where kubectl does a few. */
export class ApiRequests implements Disposable {
  readonly #agent: Agent;
  readonly #server: string;

  /** @param kubeconfig path of a kubeconfig with a client certificate, as the bench writes them. */
  constructor(kubeconfig: string) {
    const config = JSON.parse(readFileSync(kubeconfig, 'utf8')) as Kubeconfig;
    const decode = (data = '') => Buffer.from(data, 'base64');
    const user = config.users[0]?.user;
    const cluster = config.clusters[0]?.cluster;
    this.#server = cluster?.server ?? '';
    this.#agent = new Agent({
      keepAlive: true,
      ca: decode(cluster?.['certificate-authority-data']),
      cert: decode(user?.['client-certificate-data']),
      key: decode(user?.['client-key-data']),
    });
  }

  /** Creates an object of our group, strictly and without keeping it. Namespaced ones go to `default`. */
  dryRunCreate(object: Record<string, unknown>): Promise<ApiAnswer> {
    const collection = object['kind'] === 'CiJob' ? 'namespaces/default/cijobs' : 'incushosts';
    const path = `/apis/ci.pikaci.dev/v1alpha1/${collection}?dryRun=All&fieldValidation=Strict`;
    return this.send('POST', path, object);
  }

  async send(method: string, path: string, body: unknown, type = 'application/json'): Promise<ApiAnswer> {
    const { status, body: answer } = await this.#request(method, path, body, type);
    return { status, message: (answer as { message?: string }).message ?? '' };
  }

  /** The object at a path, or undefined when there is none. */
  async get(path: string): Promise<unknown> {
    const { status, body } = await this.#request('GET', path);
    if (status === 404) return undefined;
    if (status !== 200) throw new Error(`GET ${path}: ${status} ${JSON.stringify(body).slice(0, 500)}`);
    return body;
  }

  #request(method: string, path: string, body?: unknown, type = 'application/json') {
    return new Promise<{ status: number; body: unknown }>((resolve, reject) => {
      const outgoing = request(
        `${this.#server}${path}`,
        {
          method,
          agent: this.#agent,
          headers: body === undefined ? {} : { 'content-type': type },
        },
        (response) => {
          const chunks: Buffer[] = [];
          response.on('data', (chunk: Buffer) => chunks.push(chunk));
          response.on('error', reject);
          response.on('end', () => {
            const answer = JSON.parse(Buffer.concat(chunks).toString()) as unknown;
            resolve({ status: response.statusCode ?? 0, body: answer });
          });
        },
      );
      outgoing.on('error', reject);
      outgoing.end(body === undefined ? undefined : JSON.stringify(body));
    });
  }

  [Symbol.dispose](): void {
    this.#agent.destroy();
  }
}
