import type { CallHandler } from '@nestjs/common';
import type { OutgoingHttpHeaders } from 'node:http';
import { concatMap, from, Observable, of, type Subscriber, type Subscription } from 'rxjs';
import { disposition, type HandlerEnd } from '../core/disposition.js';
import { idempotencyError, IdempotencyFailure, type IdempotencyError } from '../core/errors.js';
import type { Execution } from '../core/store.js';
import { BodyTooLargeError, holdBody, isStreamedBody, type StreamedBody } from './held-body.js';
import { inIdentityCoding } from './identity-coding.js';
import { completeRejection, IdempotencyException } from './problem-details.js';
import type { Answer, ResponseRecorder } from './response-recorder.js';
import type { RouteSettings } from './route-settings.js';

/** What a run needs to know of its request. */
export interface RunContext {
  readonly execution: Execution;
  readonly recorder: ResponseRecorder;
  readonly settings: RouteSettings;
  /** The headers at take-over, less those the handler's own decorators set. */
  readonly baseline: OutgoingHttpHeaders;
  /** The key as it was received, for every answer. */
  readonly keyHeader: OutgoingHttpHeaders;
  /** For an answer that is recorded. */
  readonly recordedHeaders: OutgoingHttpHeaders;
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
  /** A source that fails is no answer of the handler, whatever status its error asks for. */
  #sourceFailed = false;
  #concluding = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(private readonly context: RunContext) {}

  start(next: CallHandler): Observable<unknown> {
    const { execution, settings } = this.context;
    return new Observable((subscriber) => {
      this.#timer = setTimeout(() => {
        running.unsubscribe();
        this.#expire(subscriber);
      }, settings.maxDuration);
      const running: Subscription = execution.run(() =>
        next
          .handle()
          .pipe(concatMap((value) => (isStreamedBody(value) ? from(this.#holdBody(value)) : of(value))))
          .subscribe({
            next: (value) => subscriber.next(value),
            error: (error) => this.#failed(error, subscriber),
            complete: () => this.#completed(subscriber),
          }),
      );
      return () => {
        running.unsubscribe();
        this.#cancelled();
      };
    });
  }

  /** Called when the held response is complete. */
  responseEnded(): void {
    setImmediate(() => {
      if (this.#handler === undefined) this.context.recorder.tellWriters();
    });
    this.#settle();
  }

  async #holdBody(value: StreamedBody): Promise<StreamedBody> {
    try {
      return await holdBody(value, this.context.settings.maxBody);
    } catch (error) {
      this.#sourceFailed = true;
      throw error;
    }
  }

  #completed(subscriber: Subscriber<unknown>): void {
    this.#handler = this.context.execution.handlerBegan ? 'returned' : 'not-begun';
    subscriber.complete();
    this.#settle();
  }

  #failed(error: unknown, subscriber: Subscriber<unknown>): void {
    const failure = this.#explain(error);
    const isOurs = failure instanceof IdempotencyFailure;
    if (isOurs || this.#sourceFailed) this.#handler = 'broken';
    else this.#handler = this.context.execution.handlerBegan ? 'threw' : 'not-begun';
    if (this.context.recorder.begun) {
      // The response looked sent when the handler failed, so no filter can answer any more.
      this.#replacement = isOurs ? failure.error : idempotencyError('IDEMPOTENCY_RESPONSE_FAILED');
    }
    subscriber.error(isOurs ? this.#exception(failure) : failure);
    this.#settle();
  }

  #explain(error: unknown): unknown {
    if (error instanceof BodyTooLargeError) {
      return new IdempotencyFailure(idempotencyError('IDEMPOTENCY_RESPONSE_TOO_LARGE'), { cause: error });
    }
    return this.context.execution.explain(error);
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
    void this.context.execution.release().then(() => this.context.recorder.letGo());
  }

  #expire(subscriber: Subscriber<unknown>): void {
    const error = idempotencyError('IDEMPOTENCY_MAX_DURATION_EXCEEDED');
    if (this.#concluding) {
      this.context.execution.abandon();
      return;
    }
    const failure = new IdempotencyFailure(error);
    if (this.#handler !== undefined || this.context.recorder.begun) {
      this.#handler = 'broken';
      this.#replacement = error;
      subscriber.error(failure);
      void this.#conclude();
      return;
    }
    this.#handler = 'broken';
    void this.context.execution.release().then(() => subscriber.error(this.#exception(failure)));
  }

  #settle(): void {
    if (this.#handler === undefined || this.context.recorder.end === undefined || this.#concluding) return;
    void this.#conclude();
  }

  async #conclude(): Promise<void> {
    this.#concluding = true;
    const { recorder } = this.context;
    if (recorder.end === 'broken') this.#replacement ??= idempotencyError('IDEMPOTENCY_RESPONSE_FAILED');
    else if (recorder.tooLarge) this.#replacement ??= idempotencyError('IDEMPOTENCY_RESPONSE_TOO_LARGE');
    try {
      recorder.send(await this.#answer(recorder.held()));
    } catch (error) {
      recorder.send(this.#instead(errorOf(error), error));
    } finally {
      clearTimeout(this.#timer);
    }
  }

  async #answer(held: Answer): Promise<Answer> {
    const { execution, settings, baseline, keyHeader, recordedHeaders } = this.context;
    const outcome = disposition(this.#handler ?? 'broken', held.status, settings.storage);
    if (this.#replacement || outcome.kind === 'release') {
      await execution.release();
      if (this.#replacement) return this.#instead(this.#replacement);
      const answer = this.#thrown ? await completeRejection(held, this.#thrown.problem) : held;
      return withHeaders(answer, keyHeader);
    }
    const { headers, body } = await inIdentityCoding(held);
    const recorded = settings.headers.recorded(baseline, headers);
    await execution.complete({ status: held.status, headers: recorded, body }, outcome.handler);
    return withHeaders(held, { ...keyHeader, ...recordedHeaders });
  }

  #instead(error: IdempotencyError, cause?: unknown): Answer {
    this.context.report(error, cause);
    const { recorder, settings, baseline, keyHeader } = this.context;
    const headers = settings.headers.ofTheExchange(baseline, recorder.held().headers);
    return settings.problems.answer(error, { ...headers, ...keyHeader });
  }
}

function withHeaders(answer: Answer, headers: OutgoingHttpHeaders): Answer {
  return { ...answer, headers: { ...answer.headers, ...headers } };
}

function errorOf(error: unknown): IdempotencyError {
  return error instanceof IdempotencyFailure ? error.error : idempotencyError('IDEMPOTENCY_RESPONSE_FAILED');
}
