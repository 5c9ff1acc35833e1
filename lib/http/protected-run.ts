import type { CallHandler } from '@nestjs/common';
import type { OutgoingHttpHeaders } from 'node:http';
import { concatMap, from, Observable, of, type Subscriber, type Subscription } from 'rxjs';
import { disposition, isSuccess, type HandlerEnd } from '../core/disposition.js';
import { idempotencyError, IdempotencyFailure, type IdempotencyError } from '../core/errors.js';
import { isThrownByStep } from '../core/nested-runs.js';
import type { Execution } from '../core/store.js';
import { unsettled } from '../core/unsettled.js';
import { BodyLostError, holdBody, isStreamedBody } from './held-body.js';
import { inIdentityCoding } from './identity-coding.js';
import { completeRejection, IdempotencyException } from './problem-details.js';
import type { Answer, ResponseRecorder } from './response-recorder.js';
import { ReleaseIdempotencyKey } from './release-idempotency-key.js';
import type { RouteSettings } from './route-settings.js';

/** What a run needs to know of its request. */
export interface RunContext {
  readonly execution: Execution;
  readonly recorder: ResponseRecorder;
  readonly settings: RouteSettings;
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
    this.context.recorder.letGo();
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
    if (this.#handler !== undefined) this.#settle();
    else
      setImmediate(() => {
        if (this.#handler === undefined) this.context.recorder.tellWriters();
      });
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
    if (this.context.recorder.begun) {
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
    void this.context.execution.giveUp('unsettled').then(() => this.context.recorder.letGo());
  }

  #expire(): void {
    const error = this.#error('IDEMPOTENCY_MAX_DURATION_EXCEEDED');
    if (this.#concluding) {
      this.context.execution.abandon();
      return;
    }
    const failure = new IdempotencyFailure(error);
    if (this.#handler !== undefined || this.context.recorder.begun) {
      this.#handler = 'broken';
      this.#replacement = error;
      this.#subscriber?.error(failure);
      void this.#conclude();
      return;
    }
    this.#handler = 'broken';
    this.#expired = error;
    void this.context.execution.giveUp('unsettled').then(() => {
      // A handler that began to answer meanwhile has not heard of it, and leaves the filters nothing to answer.
      if (this.context.recorder.begun) this.#replacement ??= error;
      this.#subscriber?.error(this.#exception(failure));
    });
  }

  #settle(): void {
    if (this.#handler === undefined || this.context.recorder.end === undefined || this.#concluding) return;
    void this.#conclude();
  }

  async #conclude(): Promise<void> {
    this.#concluding = true;
    const { recorder } = this.context;
    if (!this.#thrown) this.#replacement ??= this.#expired;
    if (this.#handler === 'unseen' && isSuccess(recorder.held().status))
      this.#replacement ??= idempotencyError('IDEMPOTENCY_HANDLER_NOT_SEEN');
    if (recorder.end === 'broken') this.#lose(this.#error('IDEMPOTENCY_RESPONSE_FAILED'));
    else if (recorder.tooLarge) this.#lose(this.#error('IDEMPOTENCY_RESPONSE_TOO_LARGE'));
    try {
      recorder.send(await this.#answer(recorder.held()));
    } catch (error) {
      // Where it has not ended yet, the response could not be brought into the form that is kept.
      await this.context.execution.giveUp('unkeepable');
      recorder.send(this.#instead(this.#errorOf(error), error));
    } finally {
      clearTimeout(this.#timer);
    }
  }

  /** The response cannot be kept. What the handler did outside the database stays done. */
  #lose(error: IdempotencyError): void {
    const isResult = this.#handler === 'returned' || (this.#isLease && this.#handler === 'threw');
    if (isResult && this.context.recorder.held().status < 500) this.#handler = 'unkeepable';
    else if (isResult || this.#handler === 'threw') this.#handler = 'broken';
    const isTombstone = this.#isLease && this.#handler === 'unkeepable';
    this.#replacement ??= isTombstone ? idempotencyError('IDEMPOTENCY_RESPONSE_NOT_KEPT') : error;
  }

  async #answer(held: Answer): Promise<Answer> {
    const { execution, settings, baseline, keyHeader, recordedHeaders } = this.context;
    const outcome = disposition(this.#handler ?? 'broken', held.status, settings.storage);
    if (outcome.kind !== 'complete') {
      await (outcome.kind === 'release' ? execution.release() : execution.giveUp(outcome.why));
      if (this.#replacement) return this.#instead(this.#replacement);
      const answer = this.#thrown ? await completeRejection(held, this.#thrown.problem) : held;
      return withHeaders(answer, keyHeader());
    }
    const identity = await inIdentityCoding(held, settings.maxBody);
    if (!identity) {
      this.#lose(this.#error('IDEMPOTENCY_RESPONSE_TOO_LARGE'));
      return this.#answer(held);
    }
    const { headers, body } = identity;
    const recorded = settings.headers.recorded(baseline, headers);
    await execution.complete({ status: held.status, headers: recorded, body }, outcome.handler);
    this.#recorded = true;
    return withHeaders(held, { ...keyHeader(), ...recordedHeaders() });
  }

  #errorOf(error: unknown): IdempotencyError {
    if (error instanceof IdempotencyFailure) return error.error;
    if (this.#recorded) return idempotencyError('IDEMPOTENCY_OUTCOME_UNKNOWN');
    return idempotencyError(this.#isLease ? 'IDEMPOTENCY_RESPONSE_NOT_KEPT' : 'IDEMPOTENCY_RESPONSE_FAILED');
  }

  #instead(error: IdempotencyError, cause?: unknown): Answer {
    this.context.report(error, cause);
    const { recorder, settings, baseline, keyHeader } = this.context;
    const headers = settings.headers.ofTheExchange(baseline, recorder.held().headers);
    return settings.problems.answer(error, { ...headers, ...keyHeader() });
  }
}

function withHeaders(answer: Answer, headers: OutgoingHttpHeaders): Answer {
  return { ...answer, headers: { ...answer.headers, ...headers } };
}
