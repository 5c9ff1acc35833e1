import type { CallHandler, ExecutionContext, NestInterceptor } from '@nestjs/common';
import { Observable, throwError, type Subscriber } from 'rxjs';
import type { Decision } from '../core/engine.js';
import type { LateExecution } from './late-execution.js';
import type { ProtectedRun } from './protected-run.js';

/** What is to be done with a request. */
export type Verdict = Decision | { readonly kind: 'unprotected' };

/** A verdict by which the handler does not run. */
export type Answerable = Extract<Verdict, { kind: 'replay' | 'reject' }>;

type Arrival = (context: ExecutionContext, next: CallHandler) => Observable<unknown>;

/** What requests do that have come as far as their handlers. */
const arrivals = new WeakMap<object, Arrival>();

/**
 * Has `arrive` called where the handler would run. The interceptors in between may call it in any context, as queues do that
 * run one request's work from another's: here it comes back to its own.
 */
export function onArrival(request: object, arrive: Arrival): void {
  arrivals.set(request, arrive);
}

/** Stands innermost of all interceptors: upload interceptors have read the body, pipes and handler come next. */
export const innermost: NestInterceptor = {
  intercept(context, next) {
    const request: object = context.switchToHttp().getRequest();
    return arrivals.get(request)?.(context, next) ?? next.handle();
  },
};

/**
 * The claim of a request whose body has to be read by other interceptors first.
 *
 * The response is held from the outermost interceptor on, as ever, and the identity is claimed behind the innermost. A
 * replay or a refusal is answered from the outermost: the interceptors in between are unsubscribed from, and neither map
 * what they did not cause nor catch what is not theirs.
 */
export class LateClaim {
  #verdict: Promise<Verdict | undefined> | undefined;

  constructor(
    private readonly execution: LateExecution,
    private readonly run: ProtectedRun,
    private readonly judge: (context: ExecutionContext) => Promise<Verdict>,
    private readonly answer: (verdict: Answerable) => Observable<unknown>,
  ) {}

  /** Called where the handler would run. An interceptor may try more than once, which makes no second claim. */
  arrive(context: ExecutionContext, next: CallHandler): Observable<unknown> {
    return new Observable((subscriber) => {
      this.#verdict ??= this.#claim(context);
      this.#verdict
        .then((verdict) => verdict && this.#go(verdict, next, subscriber))
        .catch((error: unknown) => subscriber.error(error));
    });
  }

  /** Undefined when the request has ended meanwhile, or the application's own functions failed. */
  async #claim(context: ExecutionContext): Promise<Verdict | undefined> {
    try {
      const verdict = await this.judge(context);
      if (verdict.kind !== 'run') return verdict;
      if (!(await this.execution.claimed(verdict.execution))) return undefined;
      this.run.claimed();
      return verdict;
    } catch (error) {
      this.run.withdraw(() => throwError(() => error));
      return undefined;
    }
  }

  #go(verdict: Verdict, next: CallHandler, subscriber: Subscriber<unknown>): void {
    switch (verdict.kind) {
      case 'unprotected':
        this.run.standAside();
        subscriber.add(next.handle().subscribe(subscriber));
        break;
      case 'run':
        // One that was given up on while it was decided does not run any more.
        if (subscriber.closed) break;
        subscriber.add(verdict.execution.run(() => next.handle().subscribe(subscriber)));
        break;
      case 'replay':
      case 'reject':
        this.run.withdraw(() => this.answer(verdict));
    }
  }
}
