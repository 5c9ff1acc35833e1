import { Logger, type CallHandler, type ExecutionContext, type NestInterceptor } from '@nestjs/common';
import type { OutgoingHttpHeaders } from 'node:http';
import { NEVER, of, throwError, type Observable } from 'rxjs';
import type { IdempotencyEngine, ReplayedRecord } from '../core/engine.js';
import type { IdempotencyError } from '../core/errors.js';
import type { Execution } from '../core/store.js';
import { exchangeOf, type Exchange } from './exchange.js';
import { completeRejection, IdempotencyException } from './problem-details.js';
import { ProtectedRun } from './protected-run.js';
import { ResponseRecorder } from './response-recorder.js';
import type { RouteSettings } from './route-settings.js';
import type { RoutePlan, RouteRegistry } from './route-registry.js';
import { awaitsUpload } from './fingerprinting.js';
import { awaitUpload, LateClaim, type Answerable, type Verdict } from './late-claim.js';
import { LateExecution } from './late-execution.js';
import { identify, prepare, type Identification } from './preparation.js';

/** One request to a protected handler. */
interface Visit {
  readonly plan: RoutePlan;
  readonly exchange: Exchange;
  readonly next: CallHandler;
  /** The key as the client sent it. */
  readonly sentKey: string | undefined;
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
    const identification = await identify(context, exchange, plan, this.routes);
    const visit: Visit = { plan, exchange, next, sentKey: identification.sentKey };
    if (identification.kind === 'identified' && awaitsUpload(exchange, plan.settings.fingerprint)) {
      return this.#runLate(visit, identification);
    }
    const verdict = await this.#judge(identification, exchange, plan);
    switch (verdict.kind) {
      case 'unprotected':
        return next.handle();
      case 'run':
        return this.#protect(visit, verdict.execution).start(next);
      case 'replay':
        return this.#replay(visit, verdict.record);
      case 'reject':
        return this.#reject(visit, verdict.error, verdict.cause);
    }
  }

  async #judge(identification: Identification, exchange: Exchange, plan: RoutePlan): Promise<Verdict> {
    const prepared = await prepare(identification, exchange, plan);
    if (prepared.kind === 'unprotected') return prepared;
    if (prepared.kind === 'refused') return { kind: 'reject', error: prepared.error };
    const decision = await this.engine().decide(prepared.claim, plan.settings.duplicates);
    return decision.kind === 'reject'
      ? { ...decision, error: withStatus(decision.error, plan.settings) }
      : decision;
  }

  /** What the request asks for is known only when its upload has been read, behind other interceptors. */
  #runLate(visit: Visit, identification: Identification): Observable<unknown> {
    const { plan, next } = visit;
    const execution = new LateExecution();
    const run = this.#protect(visit, execution);
    const judge = (context: ExecutionContext): Promise<Verdict> =>
      this.#judge(identification, exchangeOf(context), plan);
    const answer = (verdict: Answerable): Observable<unknown> =>
      verdict.kind === 'replay'
        ? this.#replay(visit, verdict.record)
        : this.#reject(visit, verdict.error, verdict.cause);
    awaitUpload(visit.exchange.request as object, new LateClaim(execution, run, judge, answer));
    return run.startUnclaimed(next);
  }

  #protect({ plan, exchange, sentKey }: Visit, execution: Execution): ProtectedRun {
    const { settings, ownHeaders } = plan;
    const baseline = without(exchange.headers(), ownHeaders);
    const recorder = new ResponseRecorder(exchange.rawResponse, settings.maxBody, () => run.responseEnded());
    const run = new ProtectedRun({
      execution,
      recorder,
      settings,
      baseline,
      keyHeader: echo(sentKey),
      recordedHeaders: () => ({ 'idempotency-created-at': seconds(execution.createdAt) }),
      report: (error, cause) => this.#report(plan, error, cause),
    });
    return run;
  }

  /** Lets the framework answer with nothing, through its hooks, and sends the recording in place of that. */
  #replay({ plan, exchange, sentKey }: Visit, record: ReplayedRecord): Observable<unknown> {
    const { settings, ownHeaders, answeredBy } = plan;
    const baseline = without(exchange.headers(), ownHeaders);
    const { status, headers, body } = record.response;
    const recorder = new ResponseRecorder(exchange.rawResponse, settings.maxBody, () => {
      const replayed = settings.headers.replayed(baseline, recorder.held().headers, headers);
      const own = { 'idempotency-replayed': 'true', 'idempotency-created-at': seconds(record.createdAt) };
      recorder.send({ status, headers: { ...replayed, ...echo(sentKey), ...own }, body });
    });
    if (answeredBy === 'framework') return of(undefined);
    exchange.writePlaceholder();
    // A view would be rendered without its model.
    return answeredBy === 'view' ? NEVER : of(undefined);
  }

  #reject({ plan, exchange, sentKey }: Visit, error: IdempotencyError, cause?: unknown): Observable<never> {
    const problem = plan.settings.problems.problem(error);
    const recorder = new ResponseRecorder(exchange.rawResponse, Infinity, () => {
      void completeRejection(recorder.held(), problem).then((answer) => {
        recorder.send({ ...answer, headers: { ...answer.headers, ...echo(sentKey) } });
      });
    });
    this.#report(plan, error, cause);
    return throwError(() => new IdempotencyException(error, problem, cause));
  }

  /** What an operator has to know: failures of the server and of the application's own functions. */
  #report(plan: RoutePlan, error: IdempotencyError, cause: unknown): void {
    const isOrdinary = error.status < 500 || error.code === 'IDEMPOTENCY_IN_PROGRESS';
    if (isOrdinary && cause === undefined) return;
    this.#logger.warn(`${error.code} in ${plan.name}${reasonOf(cause)}`);
  }
}

/** PostgreSQL's messages may quote the data they complain of, so that only their code is told. */
function reasonOf(cause: unknown): string {
  if (!(cause instanceof Error)) return '';
  const { driverError = cause } = cause as { driverError?: unknown };
  const { severity, code } = driverError as { severity?: unknown; code?: unknown };
  return typeof severity === 'string' ? `: SQLSTATE ${String(code)}` : `: ${cause.message}`;
}

/** The in-progress answer has the status that the route asks for. */
function withStatus(error: IdempotencyError, { inProgressStatus }: RouteSettings): IdempotencyError {
  return error.code === 'IDEMPOTENCY_IN_PROGRESS' ? { ...error, status: inProgressStatus } : error;
}

function without(headers: OutgoingHttpHeaders, names: readonly string[]): OutgoingHttpHeaders {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !names.includes(name)));
}

function echo(sentKey: string | undefined): OutgoingHttpHeaders {
  return sentKey === undefined ? {} : { 'idempotency-key': sentKey };
}

/** As in `2026-01-21T10:30:00Z`. */
function seconds(time: Date): string {
  return time.toISOString().replace(/\.\d{3}Z$/, 'Z');
}
