import { Logger, type CallHandler, type ExecutionContext, type NestInterceptor } from '@nestjs/common';
import type { OutgoingHttpHeaders } from 'node:http';
import { NEVER, of, throwError, type Observable } from 'rxjs';
import type { IdempotencyEngine, ReplayedRecord } from '../core/engine.js';
import type { IdempotencyError } from '../core/errors.js';
import type { Execution } from '../core/store.js';
import { answeredAs } from './answered-as.js';
import { exchangeOf, type Exchange } from './exchange.js';
import { completeRejection, IdempotencyException } from './problem-details.js';
import { ProtectedRun } from './protected-run.js';
import { replayStatus } from './replay-status.js';
import { ResponseRecorder } from './response-recorder.js';
import type { RoutePlan, RouteRegistry } from './route-registry.js';
import { prepare } from './preparation.js';

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
    const prepared = await prepare(context, exchange, plan, this.routes);
    const visit: Visit = { plan, exchange, next, sentKey: prepared.sentKey };
    switch (prepared.kind) {
      case 'unprotected':
        return next.handle();
      case 'refused':
        return this.#reject(visit, prepared.error);
      case 'claim': {
        const decision = await this.engine().decide(prepared.claim, plan.settings.duplicates);
        if (decision.kind === 'run') return this.#run(visit, decision.execution);
        if (decision.kind === 'replay') return this.#replay(visit, decision.record);
        return this.#reject(visit, answeredAs(decision.error, plan.settings), decision.cause);
      }
    }
  }

  #run({ plan, exchange, next, sentKey }: Visit, execution: Execution): Observable<unknown> {
    const { settings, ownHeaders } = plan;
    const baseline = without(exchange.headers(), ownHeaders);
    const recorder = new ResponseRecorder(exchange.rawResponse, settings.maxBody, () => run.responseEnded());
    const run = new ProtectedRun({
      execution,
      recorder,
      settings,
      baseline,
      keyHeader: settings.responseHeaders.ofKey(sentKey),
      recordedHeaders: settings.responseHeaders.ofOriginal(execution.createdAt),
      report: (error, cause) => this.#report(plan, error, cause),
    });
    return run.start(next);
  }

  /** Lets the framework answer with nothing, through its hooks, and sends the recording in place of that. */
  #replay({ plan, exchange, sentKey }: Visit, record: ReplayedRecord): Observable<unknown> {
    const { settings, ownHeaders, answeredBy } = plan;
    const baseline = without(exchange.headers(), ownHeaders);
    const { headers, body } = record.response;
    const status = replayStatus(record, settings.answers.replay);
    const own = {
      ...settings.responseHeaders.ofKey(sentKey),
      ...settings.responseHeaders.ofReplay(record.createdAt),
    };
    const recorder = new ResponseRecorder(exchange.rawResponse, settings.maxBody, () => {
      const replayed = settings.headers.replayed(baseline, recorder.held().headers, headers);
      recorder.send({ status, headers: { ...replayed, ...own }, body });
    });
    if (answeredBy === 'framework') return of(undefined);
    exchange.writePlaceholder();
    // A view would be rendered without its model.
    return answeredBy === 'view' ? NEVER : of(undefined);
  }

  #reject({ plan, exchange, sentKey }: Visit, error: IdempotencyError, cause?: unknown): Observable<never> {
    const { problems, responseHeaders } = plan.settings;
    const problem = problems.problem(error);
    const recorder = new ResponseRecorder(exchange.rawResponse, Infinity, () => {
      void completeRejection(recorder.held(), problem).then((answer) => {
        recorder.send({ ...answer, headers: { ...answer.headers, ...responseHeaders.ofKey(sentKey) } });
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

function without(headers: OutgoingHttpHeaders, names: readonly string[]): OutgoingHttpHeaders {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !names.includes(name)));
}
