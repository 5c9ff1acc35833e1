import { Logger, type CallHandler, type ExecutionContext, type NestInterceptor } from '@nestjs/common';
import type { OutgoingHttpHeaders } from 'node:http';
import { NEVER, of, throwError, type Observable } from 'rxjs';
import { causesOf } from '../core/causes.js';
import type { IdempotencyEngine, ReplayedRecord } from '../core/engine.js';
import { idempotencyError, type IdempotencyError } from '../core/errors.js';
import type { OnDeparture } from '../core/flights.js';
import type { Execution } from '../core/store.js';
import { replayedAnswer } from '../transports/http/recorded.js';
import type { Answer } from '../transports/http/delivery.js';
import { departureOf, HeldResponse } from '../transports/http/response.js';
import { answeredAs } from './answered-as.js';
import { exchangeOf, type Exchange } from './exchange.js';
import { completeRejection, IdempotencyException } from './problem-details.js';
import { ProtectedRun } from './protected-run.js';
import { replayStatus } from './replay-status.js';
import type { RoutePlan, RouteRegistry } from './route-registry.js';
import { LateClaim, onArrival, type Answerable, type Verdict } from './late-claim.js';
import { LateExecution } from './late-execution.js';
import { awaitsUpload, identify, prepare, type Identification } from './preparation.js';

/** One request to a protected handler. */
interface Visit {
  readonly plan: RoutePlan;
  readonly exchange: Exchange;
  readonly next: CallHandler;
  /** The key as the client sent it, once it was read. */
  sentKey: string | undefined;
}

/** Stands outermost of all interceptors, and does what the engine decides. */
export class IdempotencyInterceptor implements NestInterceptor {
  readonly #logger = new Logger('Idempotency');

  constructor(
    private readonly routes: RouteRegistry,
    private readonly engine: () => IdempotencyEngine,
  ) {}

  async intercept(context: ExecutionContext, next: CallHandler): Promise<Observable<unknown>> {
    const plan = context.getType() === 'http' ? this.routes.planOf(context) : undefined;
    if (!plan) return next.handle();
    const exchange = exchangeOf(context);
    const visit: Visit = { plan, exchange, next, sentKey: undefined };
    const isLate = awaitsUpload(exchange, plan.settings.fingerprint);
    // A field of the upload, or what a function reads of it, is not there yet.
    if (isLate && plan.settings.keyLookup.source.kind !== 'header') return this.#runLate(visit);
    const identification = await this.#identify(context, exchange, visit);
    if (isLate && identification.kind === 'identified') return this.#runLate(visit, identification);
    const verdict = await this.#judge(identification, exchange, plan, departureOf(exchange.rawResponse));
    switch (verdict.kind) {
      case 'unprotected':
        return next.handle();
      case 'run':
        return this.#run(visit, verdict.execution);
      case 'replay':
        return this.#replay(visit, verdict.record);
      case 'reject':
        return this.#reject(visit, verdict.error, verdict.cause);
    }
  }

  async #identify(context: ExecutionContext, exchange: Exchange, visit: Visit): Promise<Identification> {
    const identification = await identify(context, exchange, visit.plan, this.routes);
    visit.sentKey = identification.sentKey;
    return identification;
  }

  async #judge(
    identification: Identification,
    exchange: Exchange,
    plan: RoutePlan,
    onDeparture: OnDeparture,
  ): Promise<Verdict> {
    const prepared = await prepare(identification, exchange, plan);
    if (prepared.kind === 'unprotected') return prepared;
    if (prepared.kind === 'refused') return { kind: 'reject', error: prepared.error };
    const decision = await this.engine().decide(prepared.claim, plan.settings.duplicates, { onDeparture });
    return decision.kind === 'reject'
      ? { ...decision, error: answeredAs(decision.error, plan.settings) }
      : decision;
  }

  #run(visit: Visit, execution: Execution): Observable<unknown> {
    onArrival(visit.exchange.request as object, (_context, inner) => execution.run(() => inner.handle()));
    return this.#protect(visit, execution).run.start(visit.next);
  }

  /** What the request asks for is known only when its upload has been read, behind other interceptors. */
  #runLate(visit: Visit, identification?: Identification): Observable<unknown> {
    const { plan, next } = visit;
    const execution = new LateExecution();
    const { run, held } = this.#protect(visit, execution);
    const judge = async (context: ExecutionContext): Promise<Verdict> => {
      const exchange = exchangeOf(context);
      const identified = identification ?? (await this.#identify(context, exchange, visit));
      return this.#judge(identified, exchange, plan, (leave) => held.onDeparture(leave));
    };
    const answer = (verdict: Answerable): Observable<unknown> =>
      verdict.kind === 'replay'
        ? this.#replay(visit, verdict.record)
        : this.#reject(visit, verdict.error, verdict.cause);
    const claim = new LateClaim(execution, run, judge, answer);
    onArrival(visit.exchange.request as object, (context, inner) => claim.arrive(context, inner));
    return run.startUnclaimed(next);
  }

  #protect(visit: Visit, execution: Execution): { run: ProtectedRun; held: HeldResponse } {
    const { plan, exchange } = visit;
    const { settings } = plan;
    const baseline = baselineOf(visit);
    const held = new HeldResponse(exchange.rawResponse, settings.maxBody, () => run.responseEnded());
    const run = new ProtectedRun({
      execution,
      held,
      settings,
      isAnsweredByFramework: plan.answeredBy === 'framework',
      baseline,
      keyHeader: () => settings.responseHeaders.ofKey(visit.sentKey),
      recordedHeaders: () => settings.responseHeaders.ofOriginal(execution.createdAt),
      report: (error, cause) => this.#report(plan, error, cause),
    });
    return { run, held };
  }

  /** Lets the framework answer with nothing, through its hooks, and sends the recording in place of that. */
  #replay(visit: Visit, record: ReplayedRecord): Observable<unknown> {
    const { plan, exchange, sentKey } = visit;
    const { settings, answeredBy } = plan;
    const baseline = baselineOf(visit);
    const status = replayStatus(record, settings.answers.replay);
    const own = {
      ...settings.responseHeaders.ofKey(sentKey),
      ...settings.responseHeaders.ofReplay(record.createdAt),
    };
    const held = new HeldResponse(exchange.rawResponse, settings.maxBody, () => {
      const current = held.held().headers;
      const replayed = replayedAnswer(record.response, status, settings.headers, { baseline, current });
      held.deliver(replayed, own, (cause) => this.#unsent(visit, cause));
    });
    if (answeredBy === 'framework') return of(undefined);
    exchange.writePlaceholder();
    // A view would be rendered without its model.
    return answeredBy === 'view' ? NEVER : of(undefined);
  }

  #reject(visit: Visit, error: IdempotencyError, cause?: unknown): Observable<never> {
    const { plan, exchange, sentKey } = visit;
    const { problems, responseHeaders } = plan.settings;
    const problem = problems.problem(error);
    const deliver = async (): Promise<void> => {
      const answer = await completeRejection(held.held(), problem);
      held.deliver(answer, responseHeaders.ofKey(sentKey), (failure) => this.#unsent(visit, failure, error));
    };
    const held = new HeldResponse(exchange.rawResponse, Infinity, () => {
      deliver().catch((failure: unknown) => this.#report(plan, error, failure));
    });
    this.#report(plan, error, cause);
    return throwError(() => new IdempotencyException(error, problem, cause));
  }

  /** What is sent in place of an answer that could not be. */
  #unsent(
    { plan, sentKey }: Visit,
    cause: unknown,
    error: IdempotencyError = idempotencyError('IDEMPOTENCY_RESPONSE_NOT_SENT'),
  ): Answer {
    this.#report(plan, error, cause);
    const { problems, responseHeaders } = plan.settings;
    return problems.answer(error, responseHeaders.ofKey(sentKey));
  }

  /** What an operator has to know: failures of the server and of the application's own functions. */
  #report(plan: RoutePlan, error: IdempotencyError, cause: unknown): void {
    const isOrdinary = error.status < 500 || error.code === 'IDEMPOTENCY_IN_PROGRESS';
    if (isOrdinary && cause === undefined) return;
    this.#logger.warn(`${error.code} in ${plan.name}: ${causesOf(cause) ?? error.detail}`);
  }
}

/** The headers at take-over, less those the handler's own decorators set. */
function baselineOf({ plan, exchange }: Visit): OutgoingHttpHeaders {
  const headers = exchange.headers();
  for (const name of plan.ownHeaders) Reflect.deleteProperty(headers, name);
  return headers;
}
