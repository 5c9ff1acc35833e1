import { attemptOnce } from './attempt.js';
import { pauseAfter } from './backoff.js';
import { unknownOption, type CallOptions } from './call-options.js';
import { Deadline, Interrupted } from './deadline.js';
import { CallError, SchemaError, type Effect } from './errors.js';
import { callFailure, interruption } from './failures.js';
import type { AnyInput } from './frozen-request.js';
import { isWrite } from './method.js';
import { prepare, type PreparedRequest } from './prepared-request.js';
import { read, type Reading } from './reading.js';
import type { AttemptReport, CallHooks, NextStep } from './reports.js';
import { describeIssues, type SchemaResult } from './schema.js';
import type { Settings } from './settings.js';
import { effectAfter, judge, type ReadAttempt, type Verdict } from './verdict.js';

/** A call that succeeded. */
export interface CallResult<Data> {
  /** The body: JSON parsed and validated, other text as a string, anything else as bytes; undefined when it is empty. */
  readonly data: Data;
  /** From 200 to 299. */
  readonly status: number;
  /** Those of the answer; across origins a browser shows what the server exposes. */
  readonly headers: Headers;
  /** The idempotency key; undefined for an endpoint without. */
  readonly key: string | undefined;
  /** Whether it is the answer of an earlier request with this key, which may be an earlier attempt of this call. */
  readonly replayed: boolean;
  /** Requests it took. */
  readonly attempts: number;
  /** When the request that was answered ran, by the server's clock; undefined where the server does not tell. */
  readonly createdAt: Date | undefined;
}

/** Makes one logical call: as many requests as it takes, all of them the same. */
export async function call(
  settings: Settings,
  input: AnyInput,
  options: CallOptions,
): Promise<CallResult<unknown>> {
  refuseUnknown(settings, options);
  const deadline = new Deadline(settings.timeout.total, options.signal);
  let saving: string | undefined;
  const nothingSent = (): CallError =>
    interruption(settings, deadline, {
      // A key that is left behind is sent by whoever finds it, whatever the caller does next.
      effect: saving === undefined ? 'none' : 'unknown',
      key: saving ?? options.idempotencyKey,
      attempts: 0,
    });
  const beforeSave = (key: string): void => {
    if (deadline.why) throw nothingSent();
    saving = key;
  };
  try {
    if (deadline.why) throw nothingSent();
    const request = await deadline
      .race(prepare(settings, input, options, beforeSave))
      .catch((error: unknown) => {
        throw error instanceof Interrupted ? nothingSent() : error;
      });
    return await new Attempts(settings, request, deadline, [settings.hooks, options]).run();
  } finally {
    deadline.end();
  }
}

function refuseUnknown({ method, path }: Settings, options: CallOptions): void {
  const unknown = unknownOption(options);
  if (unknown === undefined) return;
  const facts = { effect: 'none', key: options.idempotencyKey, attempts: 0 } as const;
  throw new CallError(
    'CALL_INPUT_INVALID',
    `${method} ${path} was called with the unknown option ${unknown}.`,
    facts,
  );
}

/** The attempts of one call. */
class Attempts {
  #attempts = 0;
  /** Attempts after which to try again: those that found the first request running do not count. */
  #failures = 0;
  #waits = 0;
  #effect: Effect = 'none';

  constructor(
    private readonly settings: Settings,
    private readonly request: PreparedRequest,
    private readonly deadline: Deadline,
    private readonly hooks: readonly CallHooks[],
  ) {}

  async run(): Promise<CallResult<unknown>> {
    for (;;) {
      if (this.deadline.why) throw this.#interruption();
      const startedAt = performance.now();
      const attempt = await this.#attempt();
      const verdict = judge(attempt, this.settings);
      const next = this.#next(verdict);
      this.#tell(attempt, next, performance.now() - startedAt);
      if (next.kind === 'return' && attempt.kind === 'answer') return this.#result(attempt.reading);
      if (next.kind !== 'retry' && next.kind !== 'wait') throw this.#failure(attempt);
      await this.deadline.pause(next.pause).catch(() => undefined);
    }
  }

  async #attempt(): Promise<ReadAttempt> {
    const { settings, deadline } = this;
    this.#attempts += 1;
    const { perAttempt } = settings.timeout;
    const attempted = await attemptOnce(settings.fetch, this.request, perAttempt, deadline.signal);
    const attempt: ReadAttempt =
      attempted.kind === 'answer'
        ? { kind: 'answer', reading: read(attempted.answer, settings.idempotency) }
        : attempted;
    this.#effect = effectAfter(this.#effect, attempt, settings);
    return attempt;
  }

  #next(verdict: Verdict): NextStep {
    if (verdict.kind === 'success') return { kind: 'return' };
    if (verdict.kind === 'final') return { kind: 'fail' };
    const { attempts, backoff } = this.settings.retry;
    const isWait = verdict.kind === 'wait';
    const count = isWait ? ++this.#waits : ++this.#failures;
    if (!isWait && count >= attempts) return { kind: 'fail' };
    const pause = pauseAfter(count, backoff, verdict.retryAfter, Math.random());
    return pause < this.deadline.remaining ? { kind: verdict.kind, pause } : { kind: 'fail' };
  }

  #tell(attempt: ReadAttempt, next: NextStep, duration: number): void {
    const { method } = this.settings;
    const { url, key } = this.request;
    const outcome: AttemptReport['outcome'] =
      attempt.kind === 'answer'
        ? { kind: 'answer', status: attempt.reading.status, replayed: attempt.reading.replayed }
        : attempt.kind === 'aborted'
          ? { kind: this.deadline.why ?? 'aborted' }
          : attempt;
    const report: AttemptReport = { attempt: this.#attempts, method, url, key, duration, outcome, next };
    for (const { onAttempt } of this.hooks) {
      // An observer must not decide over a payment. An asynchronous one would end the process by its rejection.
      void Promise.resolve(report)
        .then(onAttempt)
        .catch(() => undefined);
    }
  }

  async #result(reading: Reading): Promise<CallResult<unknown>> {
    const { status, headers, replayed, createdAt } = reading;
    const data = await this.#validated(reading);
    return { data, status, headers, key: this.request.key, replayed, attempts: this.#attempts, createdAt };
  }

  async #validated({ body, fault }: Reading): Promise<unknown> {
    const { output, method } = this.settings;
    const facts = { ...this.#facts, effect: isWrite(method) ? 'done' : 'none' } as const;
    const where = `${method} ${this.settings.path} answered with a body that`;
    if (fault)
      throw new SchemaError('CALL_OUTPUT_INVALID', `${where} is no JSON.`, facts, [{ message: fault }]);
    if (!output) return body;
    const check = async (): Promise<SchemaResult<unknown>> => output['~standard'].validate(body);
    const result = await this.deadline.race(check()).catch((cause: unknown) => {
      if (cause instanceof Interrupted) throw this.#interruption();
      throw new SchemaError(
        'CALL_OUTPUT_INVALID',
        `${where} the output schema failed on.`,
        { ...facts, cause },
        [],
      );
    });
    if (!result.issues) return result.value;
    const message = `${where} does not match the output schema: ${describeIssues(result.issues)}.`;
    throw new SchemaError('CALL_OUTPUT_INVALID', message, facts, result.issues);
  }

  #failure(attempt: ReadAttempt): CallError {
    return attempt.kind === 'aborted'
      ? this.#interruption()
      : callFailure(this.settings, attempt, this.#facts);
  }

  #interruption(): CallError {
    return interruption(this.settings, this.deadline, this.#facts);
  }

  get #facts(): { effect: Effect; key: string | undefined; attempts: number } {
    return { effect: this.#effect, key: this.request.key, attempts: this.#attempts };
  }
}
