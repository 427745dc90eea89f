/** A request on its way, or its answer on the way back. */
export interface Message {
  /** What it asks, in plain words, for the trace. */
  readonly words: string;
  readonly sender: string;
  arrived: boolean;
  /** What came of it, once it has arrived, if not what was asked. */
  error: string;
  /** Lets it take effect; its answer is then on the way back. */
  arrive(): void;
  /** Hands the answer to the sender. */
  answer(): void;
  /** The sender learns only that no answer came. */
  lose(): void;
  /** The sender is dead: nobody hears the answer. */
  abandoned: boolean;
}

/** Everything that is on its way between controllers, the API server and Incus. */
export class Wire {
  messages: Message[] = [];

  /**
   * Sends a request.
   *
   * @param effect what it does where it arrives; what this throws is the answer.
   * @param lost the error that the sender gets when the answer is lost.
   */
  send<T>(sender: string, words: string, effect: () => T, lost: () => Error): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    let reply: () => void = () => undefined;
    const message: Message = {
      words,
      sender,
      arrived: false,
      error: '',
      abandoned: false,
      arrive: () => {
        message.arrived = true;
        try {
          const value = effect();
          reply = () => resolve(value);
        } catch (error) {
          reply = () => reject(error);
        }
        if (message.abandoned) this.#drop(message);
      },
      answer: () => {
        this.#drop(message);
        reply();
      },
      lose: () => {
        this.#drop(message);
        reject(lost());
      },
    };
    this.messages.push(message);
    return promise;
  }

  /** The sender has died: what has not arrived may still do so, but nobody hears an answer. */
  abandon(sender: string): void {
    for (const message of this.of(sender)) message.abandoned = true;
    this.messages = this.messages.filter((message) => !(message.abandoned && message.arrived));
  }

  /** Messages of a sender, or of one that is part of it: `a` has those of `a@host`. */
  of(sender: string): Message[] {
    return this.messages.filter(
      (message) => message.sender === sender || message.sender.startsWith(`${sender}@`),
    );
  }

  #drop(message: Message): void {
    this.messages = this.messages.filter((other) => other !== message);
  }
}
