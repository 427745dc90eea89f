/** How much is taken, of a host or by a namespace. */
export interface Usage {
  instances: number;
  cpu: number;
  memoryBytes: number;
}

/** Room for one instance, and whose it is. */
export interface Slot {
  host: string;
  namespace: string;
  cpu: number;
  memoryBytes: number;
}

/** Who holds which slot. The sums by host and by namespace are kept with each change, so that asking is cheap. */
export class Ledger {
  /** By instance name. */
  readonly #slots = new Map<string, Slot>();
  readonly #byHost = new Map<string, Usage>();
  readonly #byNamespace = new Map<string, Usage>();

  get(instance: string): Slot | undefined {
    return this.#slots.get(instance);
  }

  /** Notes that an instance has a slot, in place of one that it may have had. */
  take(instance: string, slot: Slot): void {
    this.release(instance);
    this.#slots.set(instance, slot);
    this.#count(slot, 1);
  }

  /** Takes the slot of an instance back. Returns whether it had one. */
  release(instance: string): boolean {
    const slot = this.#slots.get(instance);
    if (!slot) return false;
    this.#slots.delete(instance);
    this.#count(slot, -1);
    return true;
  }

  usedOn(host: string): Readonly<Usage> {
    return this.#byHost.get(host) ?? none;
  }

  usedBy(namespace: string): Readonly<Usage> {
    return this.#byNamespace.get(namespace) ?? none;
  }

  #count(slot: Slot, sign: 1 | -1): void {
    add(this.#byHost, slot.host, slot, sign);
    add(this.#byNamespace, slot.namespace, slot, sign);
  }
}

const none: Readonly<Usage> = { instances: 0, cpu: 0, memoryBytes: 0 };

function add(sums: Map<string, Usage>, key: string, { cpu, memoryBytes }: Slot, sign: 1 | -1): void {
  const before = sums.get(key) ?? none;
  const after = {
    instances: before.instances + sign,
    cpu: before.cpu + sign * cpu,
    memoryBytes: before.memoryBytes + sign * memoryBytes,
  };
  if (after.instances === 0) sums.delete(key);
  else sums.set(key, after);
}
