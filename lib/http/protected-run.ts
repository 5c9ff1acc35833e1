import type { CallHandler } from '@nestjs/common';
import type { OutgoingHttpHeaders } from 'node:http';
import { concatMap, from, Observable, of, type Subscriber, type Subscription } from 'rxjs';
import { currentFrame } from '../core/ambient.js';
import { disposition, isSuccess, type HandlerEnd } from '../core/disposition.js';
import { idempotencyError, IdempotencyFailure, type IdempotencyError } from '../core/errors.js';
import { isThrownByStep } from '../core/nested-runs.js';
import type { Execution, GiveUp } from '../core/store.js';
import { unsettled } from '../core/unsettled.js';
import { recordedResponse } from '../transports/http/recorded.js';
import type { Answer } from '../transports/http/delivery.js';
import type { HeldResponse } from '../transports/http/response.js';
import { BodyLostError, holdBody, isStreamedBody } from './held-body.js';
import { inIdentityCoding } from './identity-coding.js';
import { completeRejection, IdempotencyException } from './problem-details.js';
import { ReleaseIdempotencyKey } from './release-idempotency-key.js';
import type { RouteSettings } from './route-settings.js';

/** What a run needs to know of its request. */
export interface RunContext {
  readonly execution: Execution;
  readonly held: HeldResponse;
  readonly settings: RouteSettings;
  /** Whether the framework answers with what the handler returns, so that nobody else is to. */
  readonly isAnsweredByFramework: boolean;
  /** The headers at take-over, less those the handler's own decorators set. */
  readonly baseline: OutgoingHttpHeaders;
  /** The key as it was received, for every answer. */
  readonly keyHeader: () => OutgoingHttpHeaders;
  /** For an answer that is recorded. */
  readonly recordedHeaders: () => OutgoingHttpHeaders;
  readonly report: (error: IdempotencyError, cause: unknown) => void;
}

/**
 * Runs a handler inside its claim, and decides what becomes of it when two things are known: how the handler's stream
 * ended, and that the response is complete.
 */
export class ProtectedRun {
  #handler: HandlerEnd | undefined;
  /** Sent in place of the held response. */
  #replacement: IdempotencyError | undefined;
  /** What was thrown to the exception filters, which write its body. */
  #thrown: IdempotencyException | undefined;
  /** Why it was ended, until the exception filters have been told. */
  #expired: IdempotencyError | undefined;
  #concluding = false;
  /** Whether its answer was recorded, so that a retry gets it whatever becomes of this one. */
  #recorded = false;
  /** Whether the handler runs unprotected, so that nothing of it is held or explained. */
  #stoodAside = false;
  #timer: NodeJS.Timeout | undefined;
  #subscriber: Subscriber<unknown> | undefined;
  #running: Subscription | undefined;

  constructor(private readonly context: RunContext) {}

  start(next: CallHandler): Observable<unknown> {
    return new Observable((subscriber) => {
      this.claimed();
      return this.#run(next, subscriber);
    });
  }

  /** The same for a request whose claim comes later: {@link claimed} says when, or {@link withdraw} that it does not. */
  startUnclaimed(next: CallHandler): Observable<unknown> {
    return new Observable((subscriber) => this.#run(next, subscriber));
  }

  /** From now on the handler has `maxDuration`. */
  claimed(): void {
    this.#timer = setTimeout(() => {
      this.#running?.unsubscribe();
      this.#expire();
    }, this.context.settings.maxDuration);
  }

  /** Lets the response go and has somebody else answer in place of the handler. */
  withdraw(instead: () => Observable<unknown>): void {
    if (this.#handler !== undefined || !this.#subscriber) return;
    this.standAside();
    this.#running?.unsubscribe();
    this.#subscriber.add(instead().subscribe(this.#subscriber));
  }

  /** Lets the response go and has the handler run unprotected. */
  standAside(): void {
    this.#stoodAside = true;
    this.#handler = 'not-begun';
    this.#concluding = true;
    this.context.held.release();
  }

  #run(next: CallHandler, subscriber: Subscriber<unknown>): () => void {
    const { execution, settings } = this.context;
    this.#subscriber = subscriber;
    this.#running = execution.run(() =>
      next
        .handle()
        .pipe(
          concatMap((value) => {
            const isHeld = !this.#stoodAside && isStreamedBody(value);
            return isHeld ? from(holdBody(value, settings.maxBody)) : of(value);
          }),
        )
        .subscribe({
          next: (value) => subscriber.next(value),
          error: (error) => this.#failed(error, subscriber),
          complete: () => this.#completed(subscriber),
        }),
    );
    return () => {
      this.#running?.unsubscribe();
      this.#cancelled();
    };
  }

  /** Called when the held response is complete. */
  responseEnded(): void {
    if (this.#handler === undefined && this.#isOvertaken()) this.#overtake();
    else this.#settle();
  }

  /**
   * Whether the answer is decided although the handler runs: somebody else has given one, such as a time limit of the
   * application, or it can be kept no more. A success is never sent before the handler has ended.
   */
  #isOvertaken(): boolean {
    const { held, execution, isAnsweredByFramework } = this.context;
    if (held.end === 'too-large') return !this.#isLease;
    if (held.end !== 'ended' || !isAnsweredByFramework || isSuccess(held.held().status)) return false;
    return currentFrame() !== execution.run(currentFrame);
  }

  #overtake(): void {
    this.#handler = 'broken';
    this.#running?.unsubscribe();
    this.#conclude();
  }

  #completed(subscriber: Subscriber<unknown>): void {
    this.#handler = this.context.execution.handlerBegan ? 'returned' : 'unseen';
    subscriber.complete();
    this.#settle();
  }

  #failed(error: unknown, subscriber: Subscriber<unknown>): void {
    const failure = this.#explain(error);
    const isOurs = failure instanceof IdempotencyFailure;
    this.#handler = this.#endOf(error, isOurs);
    if (this.context.held.begun) {
      // The response looked sent when the handler failed, so no filter can answer any more.
      this.#handler = 'broken';
      this.#replacement = isOurs ? failure.error : this.#error('IDEMPOTENCY_RESPONSE_FAILED');
    }
    subscriber.error(isOurs ? this.#exception(failure) : failure);
    this.#settle();
  }

  #endOf(error: unknown, isOurs: boolean): HandlerEnd {
    if (!this.context.execution.handlerBegan) return 'not-begun';
    // A source that fails is no answer of the handler, whatever status its error asks for.
    if (error instanceof BodyLostError) return 'unkeepable';
    // What a step says of itself is not said of what the handler did besides.
    if (error instanceof ReleaseIdempotencyKey && !isThrownByStep(error)) return 'released';
    return isOurs ? 'broken' : 'threw';
  }

  #explain(error: unknown): unknown {
    const { execution } = this.context;
    if (!(error instanceof BodyLostError)) return execution.explain(error);
    if (!this.#isLease && !error.tooLarge) return execution.explain(error.cause);
    const code = this.#isLease ? 'IDEMPOTENCY_RESPONSE_NOT_KEPT' : 'IDEMPOTENCY_RESPONSE_TOO_LARGE';
    return new IdempotencyFailure(idempotencyError(code), { cause: error.cause });
  }

  get #isLease(): boolean {
    return this.context.settings.mode.kind === 'lease';
  }

  #error(code: Parameters<typeof idempotencyError>[0]): IdempotencyError {
    return this.#isLease ? unsettled(idempotencyError(code)) : idempotencyError(code);
  }

  #exception({ error, cause }: IdempotencyFailure): IdempotencyException {
    this.context.report(error, cause);
    this.#thrown = new IdempotencyException(error, this.context.settings.problems.problem(error), cause);
    return this.#thrown;
  }

  /** Nobody waits for the handler any more: it is not known how it would have ended. */
  #cancelled(): void {
    if (this.#handler !== undefined) return;
    this.#handler = 'broken';
    this.#concluding = true;
    clearTimeout(this.#timer);
    this.#giveUp('unsettled', () => this.context.held.release());
  }

  /** Neither store nor response fails whoever waits for nothing: that is reported. */
  #giveUp(why: GiveUp, then: () => void): void {
    const { execution } = this.context;
    execution.giveUp(why).then(then).catch(this.#reportFailure);
  }

  readonly #reportFailure = (cause: unknown): void => {
    this.context.report(this.#error('IDEMPOTENCY_RESPONSE_FAILED'), cause);
  };

  #expire(): void {
    const error = this.#error('IDEMPOTENCY_MAX_DURATION_EXCEEDED');
    if (this.#concluding) {
      this.context.execution.abandon();
      return;
    }
    const failure = new IdempotencyFailure(error);
    if (this.#handler !== undefined || this.context.held.begun) {
      this.#handler = 'broken';
      this.#replacement = error;
      this.#subscriber?.error(failure);
      this.#conclude();
      return;
    }
    this.#handler = 'broken';
    this.#expired = error;
    this.#giveUp('unsettled', () => {
      // A handler that began to answer meanwhile has not heard of it, and leaves the filters nothing to answer.
      if (this.context.held.begun) this.#replacement ??= error;
      this.#subscriber?.error(this.#exception(failure));
    });
  }

  #settle(): void {
    if (this.#handler === undefined || this.context.held.end === undefined || this.#concluding) return;
    this.#conclude();
  }

  #conclude(): void {
    this.#concluding = true;
    this.#deliver().catch(this.#reportFailure);
  }

  async #deliver(): Promise<void> {
    const { held } = this.context;
    if (!this.#thrown) this.#replacement ??= this.#expired;
    if (this.#handler === 'unseen' && isSuccess(held.held().status))
      this.#replacement ??= idempotencyError('IDEMPOTENCY_HANDLER_NOT_SEEN');
    if (held.end === 'broken') this.#lose(this.#error('IDEMPOTENCY_RESPONSE_FAILED'));
    else if (held.end === 'too-large') this.#lose(this.#error('IDEMPOTENCY_RESPONSE_TOO_LARGE'));
    try {
      const [answer, own] = await this.#answer(held.held());
      held.deliver(answer, own, (cause) => this.#instead(this.#errorOf(cause), cause));
    } catch (error) {
      // Where it has not ended yet, the response could not be brought into the form that is kept.
      await this.context.execution.giveUp('unkeepable');
      const instead = this.#instead(this.#errorOf(error), error);
      held.deliver(instead, {}, () => instead);
    } finally {
      clearTimeout(this.#timer);
    }
  }

  /** The response cannot be kept. What the handler did outside the database stays done. */
  #lose(error: IdempotencyError): void {
    const isResult = this.#handler === 'returned' || (this.#isLease && this.#handler === 'threw');
    if (isResult && this.context.held.held().status < 500) this.#handler = 'unkeepable';
    else if (isResult || this.#handler === 'threw') this.#handler = 'broken';
    const isTombstone = this.#isLease && this.#handler === 'unkeepable';
    this.#replacement ??= isTombstone ? idempotencyError('IDEMPOTENCY_RESPONSE_NOT_KEPT') : error;
  }

  /** What is sent, and the headers that this library adds. */
  async #answer(held: Answer): Promise<readonly [Answer, OutgoingHttpHeaders]> {
    const { execution, settings, baseline, keyHeader, recordedHeaders } = this.context;
    const outcome = disposition(this.#handler ?? 'broken', held.status, settings.storage);
    if (outcome.kind !== 'complete') {
      await (outcome.kind === 'release' ? execution.release() : execution.giveUp(outcome.why));
      if (this.#replacement) return [this.#instead(this.#replacement), {}];
      return [this.#thrown ? await completeRejection(held, this.#thrown.problem) : held, keyHeader()];
    }
    const identity = await inIdentityCoding(held, settings.maxBody);
    if (!identity) {
      this.#lose(this.#error('IDEMPOTENCY_RESPONSE_TOO_LARGE'));
      return this.#answer(held);
    }
    await execution.complete(recordedResponse(identity, settings.headers, baseline), outcome.handler);
    this.#recorded = true;
    return [held, { ...keyHeader(), ...recordedHeaders() }];
  }

  #errorOf(error: unknown): IdempotencyError {
    if (error instanceof IdempotencyFailure) return error.error;
    if (this.#recorded) return idempotencyError('IDEMPOTENCY_RESPONSE_NOT_SENT');
    return idempotencyError(this.#isLease ? 'IDEMPOTENCY_RESPONSE_NOT_KEPT' : 'IDEMPOTENCY_RESPONSE_FAILED');
  }

  #instead(error: IdempotencyError, cause?: unknown): Answer {
    this.context.report(error, cause);
    const { held, settings, baseline, keyHeader } = this.context;
    const headers = settings.headers.ofTheExchange(baseline, held.held().headers);
    return settings.problems.answer(error, { ...headers, ...keyHeader() });
  }
}
