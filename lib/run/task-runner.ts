import { currentFrame, outside } from '../core/ambient.js';
import type { IdempotencyEngine } from '../core/engine.js';
import { IdempotencyFailure, type IdempotencyError } from '../core/errors.js';
import { noteThrownByStep } from '../core/nested-runs.js';
import type { RecordedResponse } from '../core/record.js';
import type { IdempotencyModuleOptions } from '../idempotency.options.js';
import { prepareTask, type IdempotentTask } from './idempotent-task.js';
import { valueOf, type Recorded } from './recorded-value.js';
import { TaskRun, type Work } from './task-run.js';

/** What came of a run. */
export interface RunResult<T> {
  /** What the work returned, as it was recorded: the first caller and every duplicate get the same. */
  readonly value: Recorded<T>;
  /** Whether it is the recording of an earlier run, and this one did nothing. */
  readonly replayed: boolean;
  /** When the identity was first claimed, by the database's clock. */
  readonly createdAt: Date;
}

/** Does for any work what the interceptor does for a handler. */
export class TaskRunner {
  constructor(
    private readonly options: IdempotencyModuleOptions,
    private readonly engine: () => IdempotencyEngine,
  ) {}

  async run<T>(task: IdempotentTask, work: Work<T>): Promise<RunResult<T>> {
    const engine = this.engine();
    const around = currentFrame();
    around?.enterNestedRun();
    try {
      // Its connections, timers and waiting are no part of what runs around it.
      return await outside(() => this.#run(engine, task, work, around !== undefined));
    } catch (error) {
      if (around) noteThrownByStep(error);
      throw error;
    }
  }

  async #run<T>(
    engine: IdempotencyEngine,
    task: IdempotentTask,
    work: Work<T>,
    isNested: boolean,
  ): Promise<RunResult<T>> {
    const prepared = prepareTask(this.options, task);
    const decision = await engine.decide(prepared.claim, prepared.duplicates, { isNested });
    switch (decision.kind) {
      case 'reject':
        throw new IdempotencyFailure(inRun(decision.error), { cause: decision.cause });
      case 'replay':
        return result(decision.record.response, true, decision.record.createdAt);
      case 'run': {
        const { execution } = decision;
        const response = await new TaskRun(execution, prepared).carryOut(work);
        return result(response, false, execution.createdAt);
      }
    }
  }
}

function result<T>(response: RecordedResponse, replayed: boolean, createdAt: Date): RunResult<T> {
  return { value: valueOf(response) as Recorded<T>, replayed, createdAt };
}

/** What the error of a request says of its parts means the payload here. */
function inRun(error: IdempotencyError): IdempotencyError {
  if (error.code !== 'IDEMPOTENCY_KEY_REUSED') return error;
  const detail =
    'The payload must equal that of the first run, and a route of the same endpoint must not have used the key: name ' +
    'endpoints of runs and routes differently.';
  return { ...error, detail };
}
