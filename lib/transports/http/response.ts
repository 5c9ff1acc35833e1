import type { OutgoingHttpHeaders, ServerResponse } from 'node:http';
import { mute, recover, send, type Answer } from './delivery.js';
import { HeldWriting } from './held-writing.js';
import type { HeldEnd } from './life.js';

/**
 * Holds back everything written to a raw response until it is decided what the client gets.
 *
 * While it is held, the response looks to its writers as if it were being sent, and then as if it had been: what they wait for
 * comes, whatever is decided later. A client that goes away meanwhile is not noticed by them, because streams and
 * frameworks would stop half-way, and what the client asked for has an effect that a retry must find complete. Who listened
 * before, such as an access log, hears what really happens.
 */
export class HeldResponse {
  readonly #writing: HeldWriting;
  #held: Answer | undefined;

  /** `onEnd` is called once, when nothing more is to be expected. */
  constructor(raw: ServerResponse, maxSize: number, onEnd: () => void) {
    this.#writing = new HeldWriting(raw, maxSize, onEnd);
  }

  /** Undefined while more may come. */
  get end(): HeldEnd | undefined {
    return this.#writing.end;
  }

  /** Whether it looks as if its headers were sent, so that nobody can answer with another status any more. */
  get begun(): boolean {
    return this.#writing.begun;
  }

  /** What was written so far, as the client would get it. */
  held(): Answer {
    if (this.end === undefined) return this.#writing.answer();
    return (this.#held ??= this.#writing.answer());
  }

  /** Lets the response go without sending anything: from now on writers reach the client. */
  release(): void {
    this.#writing.letGo('released');
  }

  /**
   * Sends an answer through whatever wrapped the response before it was held, such as compression. It never throws: an
   * answer that cannot be sent is replaced by the other, and where something of it is out already, the connection ends.
   *
   * @param own - Headers that are added, in lower case.
   * @param instead - What is sent when it cannot be; it is called then, with the reason.
   */
  deliver(answer: Answer, own: OutgoingHttpHeaders, instead: (cause: unknown) => Answer): void {
    const { view } = this.#writing;
    try {
      this.#writing.letGo('delivered');
      // The headers of the held response are there already.
      if (!this.#isGone) send(view, answer, own, answer === this.#held);
      // Its writer has not answered, and does not know that somebody has.
      if (this.end !== 'ended') mute(view);
    } catch (cause) {
      recover(view, cause, instead);
    }
  }

  /** Has a function called when the client goes away, which nobody else hears of. */
  onDeparture(leave: () => void): () => void {
    const writing = this.#writing;
    if (writing.departed) process.nextTick(leave);
    const leavers = (writing.leavers ??= new Set());
    leavers.add(leave);
    return () => void leavers.delete(leave);
  }

  get #isGone(): boolean {
    const { departed, view } = this.#writing;
    if (departed) return true;
    const { destroyed, stream } = view.raw as { destroyed?: boolean; stream?: { destroyed?: boolean } };
    return view.isHttp2 ? stream?.destroyed === true : destroyed === true;
  }
}

/** Of a response that nobody holds: has a function called when its client goes away. */
export function departureOf(raw: ServerResponse): (leave: () => void) => () => void {
  return (leave) => {
    const { closed, stream } = raw as { closed?: boolean; stream?: { destroyed?: boolean } };
    if (closed || stream?.destroyed) process.nextTick(leave);
    raw.once('close', leave);
    return () => raw.removeListener('close', leave);
  };
}
