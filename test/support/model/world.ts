import { randomUUID } from 'node:crypto';
import { CiJob } from '../../../controller/api/cijob.ts';
import { IncusHost } from '../../../controller/api/incushost.ts';
import { apiVersion } from '../../../controller/api/meta.ts';
import { instanceName } from '../../../controller/reconcile/names.ts';
import { isFinished } from '../../../controller/reconcile/step.ts';
import { ModelApi } from './api.ts';
import { ModelClock } from './clock.ts';
import { ModelController } from './controller.ts';
import { sockets } from './host.ts';
import { ModelIncus } from './incus.ts';
import type { JobPlan, Scenario, Step } from './steps.ts';
import { Wire } from './wire.ts';

/** Something that may happen next. */
interface Choice {
  words: string;
  run: () => void;
}

/** A job of the world, and what was done to it from outside. */
export interface Subject {
  key: string;
  uid: string;
  plan: JobPlan;
  calledOff: boolean;
}

/** What befell the world that a job may rightly blame for a failed attempt. */
export interface Damage {
  /** incusd was killed, an instance was tampered with, time made a jump, or answers were lost again and again. */
  infrastructure: boolean;
  answersLost: number;
}

/** Turns after which a world that is left in peace must have come to rest. */
const patience = 4_000;

/** Controllers, the API server, Incus hosts and their guests; a schedule says who moves when, and what goes wrong. */
export class World {
  readonly clock = new ModelClock();
  readonly wire = new Wire();
  readonly api = new ModelApi();
  readonly incus: ModelIncus[];
  readonly subjects: Subject[];
  controllers: ModelController[] = [];
  readonly trace: string[] = [];
  readonly damage: Damage = { infrastructure: false, answersLost: 0 };
  readonly #scenario: Scenario;
  readonly #hosts: IncusHost[];
  #born = 0;

  constructor(scenario: Scenario) {
    this.#scenario = scenario;
    const now = () => this.clock.now();
    this.subjects = scenario.jobs.map((plan, index) => {
      const uid = `uid-${index}`;
      return { key: `default/job-${index}`, uid, plan, calledOff: false };
    });
    const fates = new Map(
      this.subjects.flatMap(({ uid, plan }) =>
        [1, 2, 3, 4].map((attempt) => [
          instanceName(uid, attempt),
          plan.fates[Math.min(attempt, plan.fates.length) - 1]!,
        ]),
      ),
    );
    this.incus = scenario.hosts.map(
      (_slots, index) => new ModelIncus(`host-${index}`, scenario.type, now, (name) => fates.get(name)!),
    );
    this.#hosts = scenario.hosts.map((instances, index) =>
      IncusHost.parse({
        apiVersion,
        kind: 'IncusHost',
        metadata: { name: `host-${index}`, uid: randomUUID(), creationTimestamp: time(now()) },
        spec: {
          connection: { local: {} },
          capacity: { instances },
          allowedNamespaces: { all: true },
        },
      }),
    );
    for (const { key, uid, plan } of this.subjects) {
      const { priority, infraRetryLimit, holdOnFailureSeconds, ttlSecondsAfterFinished } = plan;
      this.api.put(
        CiJob.parse({
          apiVersion,
          kind: 'CiJob',
          metadata: { name: key.split('/')[1], namespace: 'default', uid, creationTimestamp: time(now()) },
          spec: {
            command: 'true',
            timeoutSeconds: 600,
            bootTimeoutSeconds: this.#bootTimeoutSeconds,
            instance: {
              type: scenario.type === 'container' ? 'Container' : 'VirtualMachine',
              image: 'image',
            },
            priority,
            infraRetryLimit,
            holdOnFailureSeconds,
            ...(ttlSecondsAfterFinished === undefined ? {} : { ttlSecondsAfterFinished }),
          },
        }),
      );
    }
    this.#launchController();
  }

  /** Long enough that a jump in time excuses little, but where a guest never boots: each second of that is a probe. */
  get #bootTimeoutSeconds(): number {
    const fates = this.#scenario.jobs.flatMap((job) => job.fates);
    return fates.some(({ kind }) => kind === 'never boots') ? 10 : 300;
  }

  /** Instances that a controller asked for whose request arrived when it was dead. */
  readonly madeByTheDead = new Set<string>();

  /** Takes one step of a schedule. */
  async take(step: Step): Promise<void> {
    if (step.do === 'go on') {
      let seed = step.seed;
      for (let turn = 0; turn < step.count; turn += 1) {
        seed = (seed * 1103515245 + 12345) % 2 ** 31;
        await this.#turn(seed >> 8);
      }
      return;
    }
    this.#happen(step);
    await settle();
  }

  /** Leaves the world in peace, with one leader, until it rests. Returns whether it came to rest. */
  async calm(): Promise<boolean> {
    this.trace.push('-- from here on nothing goes wrong --');
    for (const incus of this.incus) {
      incus.up = true;
      incus.monitorsHang = false;
    }
    for (const controller of this.controllers) controller.lagging = false;
    while (this.controllers.length > 1) this.#crash(this.controllers[0]!);
    for (const { key } of this.subjects) {
      if (this.api.jobs.get(key)?.spec.suspend) this.api.change(key, { suspend: false });
    }
    await settle();
    for (let turn = 0; turn < patience; turn += 1) {
      if (this.#atRest()) return true;
      await this.#turn(turn);
    }
    return this.#atRest();
  }

  /** Has every job looked at once more. Returns the requests that this leads to: there should be none. */
  async lookAgain(): Promise<string[]> {
    for (const key of this.api.jobs.keys()) this.controllers[0]?.engine.wake(key);
    await settle();
    return this.wire.messages.map(({ words }) => words);
  }

  close(): void {
    for (const controller of [...this.controllers]) this.#crash(controller);
    sockets.clear();
  }

  #atRest(): boolean {
    if (this.wire.messages.length > 0 || this.controllers.some(({ watch }) => watch.queue.length > 0))
      return false;
    const hosts = this.controllers.flatMap((controller) => controller.hosts);
    if (hosts.some(({ current, opening }) => opening !== undefined || current?.events.length !== 0))
      return false;
    if (this.incus.some(({ work }) => work.some(({ operation }) => operation !== undefined))) return false;
    return [...this.api.jobs.values()].every(
      (job) =>
        isFinished(job) &&
        !job.metadata.finalizers?.length &&
        (job.spec.ttlSecondsAfterFinished === undefined || job.metadata.deletionTimestamp !== undefined),
    );
  }

  /** Lets one of the things happen that may happen now; when there is none, time goes on. */
  async #turn(seed: number): Promise<void> {
    const choices = this.#choices();
    const choice = choices[seed % Math.max(1, choices.length)];
    if (choice) {
      this.trace.push(choice.words);
      choice.run();
    } else {
      const next = this.clock.next() ?? this.clock.now() + 60_000;
      this.#wait(Math.max(0, next - this.clock.now()));
    }
    await settle();
  }

  #choices(): Choice[] {
    const choices: Choice[] = [];
    for (const controller of this.controllers) {
      const { watch, name } = controller;
      if (watch.queue.length > 0 && !controller.lagging) {
        choices.push({
          words: `${name} sees ${watch.queue[0]![0]} at version ${watch.queue[0]![1]?.metadata.resourceVersion ?? 'deleted'}`,
          run: () => controller.see(),
        });
      }
      for (const host of controller.hosts) {
        const { current, socket } = host;
        const session = current ?? host.opening;
        if (session && session.events.length > 0) {
          choices.push({
            words: `${name} hears from ${host.name}: ${describe(session.events[0])}`,
            run: () => session.receive(),
          });
        }
        if (!session && socket.incus.up) {
          choices.push({ words: `${name} connects to ${host.name}`, run: () => void host.connect() });
        }
      }
    }
    for (const message of this.wire.messages) {
      choices.push(
        message.arrived
          ? {
              words: `${message.sender} hears back: ${message.words}${message.error}`,
              run: () => message.answer(),
            }
          : {
              words: `arrives from ${message.sender}: ${message.words}`,
              run: () => {
                const [, made] = /^create (\S+) /.exec(message.words) ?? [];
                if (message.abandoned && made !== undefined) this.madeByTheDead.add(made);
                message.arrive();
              },
            },
      );
    }
    for (const incus of this.incus) {
      for (const work of incus.work) {
        if (work.operation !== undefined && !incus.up) continue;
        choices.push({
          words: work.words,
          run: () => {
            incus.work = incus.work.filter((other) => other !== work);
            work.run();
          },
        });
      }
    }
    return choices;
  }

  #happen(step: Exclude<Step, { do: 'go on' }>): void {
    const say = (words: string) => this.trace.push(`!! ${words}`);
    if (step.do === 'wait') {
      if (step.seconds >= this.#bootTimeoutSeconds) this.damage.infrastructure = true;
      this.#wait(step.seconds * 1000);
      return;
    }
    const one = <T>(all: readonly T[]): T | undefined => all[step.pick % Math.max(1, all.length)];
    const controller = one(this.controllers);
    const host = one(this.controllers.flatMap(({ hosts }) => hosts).filter(({ current }) => current));
    const incus = one(this.incus);
    const subject = one(this.subjects);
    switch (step.do) {
      case 'crash':
        if (!controller) return;
        say(`${controller.name} is killed`);
        this.#crash(controller);
        if (this.controllers.length === 0) this.#launchController();
        return;
      case 'second leader':
        if (this.controllers.length < 2) this.#launchController();
        return;
      case 'cut':
        if (!host) return;
        say(`the connection ${host.socket.sender} is cut`);
        this.#cut(host.socket.sender);
        host.current?.close();
        return;
      case 'relist':
        if (!host) return;
        say(`${host.socket.sender} lists everything`);
        host.current?.watch.relist().catch(() => host.current?.close());
        return;
      case 'lag':
        if (!controller) return;
        controller.lagging = !controller.lagging;
        say(`the watch of ${controller.name} ${controller.lagging ? 'lags behind' : 'goes on'}`);
        return;
      case 'lose an answer': {
        const message = one(this.wire.messages.filter(({ abandoned }) => !abandoned));
        if (!message) return;
        say(
          `${message.arrived ? 'the answer to' : 'the request'} "${message.words}" of ${message.sender} is lost`,
        );
        this.damage.answersLost += 1;
        message.lose();
        return;
      }
      case 'swap events': {
        const events = host?.current?.events ?? [];
        const [first, second] = events;
        if (!first || !second || sameInstance(first, second)) return;
        say(
          `two events to ${host?.socket.sender ?? ''} change places: ${describe(first)}, ${describe(second)}`,
        );
        events.splice(0, 2, second, first);
        return;
      }
      case 'repeat an event': {
        const events = host?.current?.events ?? [];
        if (!events[0]) return;
        say(`an event to ${host?.socket.sender ?? ''} comes twice: ${describe(events[0])}`);
        events.unshift(events[0]);
        return;
      }
      case 'kill incusd':
        if (!incus) return;
        say(`incusd of ${incus.name} is killed`);
        this.damage.infrastructure = true;
        incus.kill();
        for (const { hosts } of this.controllers) {
          for (const each of hosts.filter(({ socket }) => socket.incus === incus)) {
            this.#cut(each.socket.sender);
            (each.current ?? each.opening)?.close();
          }
        }
        return;
      case 'start incusd':
        if (incus) incus.up = true;
        return;
      case 'hang monitors':
        if (!incus) return;
        incus.monitorsHang = !incus.monitorsHang;
        say(
          `${incus.name} ${incus.monitorsHang ? 'cannot tell' : 'can tell again'} what its instances are at`,
        );
        return;
      case 'cancel':
      case 'delete':
        if (!subject || !this.api.jobs.has(subject.key)) return;
        say(`the user ${step.do}s ${subject.key}`);
        subject.calledOff = true;
        if (step.do === 'cancel') this.api.change(subject.key, { cancel: true });
        else this.api.delete(subject.key, this.clock.now());
        return;
      case 'suspend':
      case 'resume':
        if (!subject) return;
        say(`the user ${step.do}s ${subject.key}`);
        this.api.change(subject.key, { suspend: step.do === 'suspend' });
        return;
      case 'meddle': {
        const name = one([...(incus?.instances.keys() ?? [])]);
        if (name === undefined) return;
        say(`somebody uses incus to ${step.what} ${name}`);
        this.damage.infrastructure = true;
        incus?.meddle(step.what, name);
        return;
      }
    }
  }

  #wait(milliseconds: number): void {
    this.trace.push(`${milliseconds / 1000} s pass`);
    this.clock.to(this.clock.now() + milliseconds);
  }

  /** What has arrived has happened; what has not, never does; nobody hears either way. */
  #cut(sender: string): void {
    for (const message of this.wire.of(sender)) message.lose();
  }

  #crash(controller: ModelController): void {
    this.controllers = this.controllers.filter((other) => other !== controller);
    this.clock.forget(controller.name);
    this.wire.abandon(controller.name);
    void controller.crash();
    this.clock.forget(controller.name);
  }

  #launchController(): void {
    this.#born += 1;
    const name = `controller-${this.#born}`;
    this.trace.push(`${name} begins`);
    const { api, wire } = this;
    const hosts = this.#hosts.map((host, index) => {
      const socketPath = `/${name}/${host.metadata.name}`;
      sockets.set(socketPath, { incus: this.incus[index]!, wire, sender: `${name}@${host.metadata.name}` });
      return { ...host, spec: { ...host.spec, connection: { local: { socketPath } } } };
    });
    this.controllers.push(
      new ModelController({
        name,
        api,
        send: (words, effect, lost) => wire.send(name, words, effect, lost),
        clock: this.clock.of(name),
        hosts,
      }),
    );
  }

  /** The attempts of a job that really ran, or could have: every instance ever made for it. */
  livesOf(uid: string) {
    return this.incus.flatMap(({ lives }) => lives.filter(({ config }) => config['user.cijob.uid'] === uid));
  }

  get scenario(): Scenario {
    return this.#scenario;
  }
}

/** Lets everything happen that waits for nothing outside. */
const settle = () => new Promise<void>((resolve) => setImmediate(resolve));

function time(now: number): string {
  return new Date(now).toISOString();
}

function describe(event: { type: string; metadata: unknown } | undefined): string {
  const metadata = event?.metadata as { action?: string; name?: string; id?: string; status?: string };
  return event?.type === 'lifecycle'
    ? `${metadata.action ?? ''} ${metadata.name ?? ''}`
    : `${metadata.id ?? ''} ${metadata.status ?? ''}`;
}

/** Lifecycle events of one instance come in order: each is told when the one before has been. */
function sameInstance(
  one: { type: string; metadata: unknown },
  other: { type: string; metadata: unknown },
): boolean {
  const name = ({ metadata }: { metadata: unknown }) => (metadata as { name?: string }).name;
  return one.type === 'lifecycle' && other.type === 'lifecycle' && name(one) === name(other);
}
