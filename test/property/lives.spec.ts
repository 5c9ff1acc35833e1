/*
 * Workers claim the same few identities in both modes and at every isolation level, while leases
 * lapse, records expire and are purged, and operators release and settle. The database keeps the
 * accounts (lives.ts). `SEED=… npm test -- test/property/lives` draws the same again, though not at
 * the same moments; `FAULTS=full` runs longer.
 */
import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { setTimeout as delay } from 'node:timers/promises';
import { IdempotencyPurgeService, type IdempotencyExecution } from 'nestjs-pg-idempotency';
import type { DataSource } from 'typeorm';
import { currentFrame } from '../../lib/core/ambient.js';
import type { ClaimMode, ClaimOutcome, Execution, IsolationLevel } from '../../lib/core/store.js';
import { Application } from '../helpers/application.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { amount, chooseSeed, printFigures, seededRandom, type Random } from '../helpers/fault-run.js';
import { TestStore } from '../helpers/store.js';
import { Lives } from './lives.js';

const ROUNDS = amount({ short: 2_000, full: 60_000 });
const PATIENCE = amount({ short: 300_000, full: 3_600_000 });
const STORES = 4;
const WORKERS = 8;
const KEYS = ['one', 'two', 'three'];
const ISOLATIONS: readonly (IsolationLevel | undefined)[] = [
  ...[undefined, 'READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE'],
] as const;
/** Rounds after which the accounts are looked at. */
const AUDIT = 100;

/** How often each thing is done, of a hundred times. */
const ACTIONS = { transaction: 42, lease: 30, expire: 7, lapse: 5, release: 6, settle: 6, purge: 4 } as const;
type Action = keyof typeof ACTIONS;

/** Refusals that a run may meet. Each one says that nothing was recorded. */
const REFUSALS = ['IDEMPOTENCY_TRANSACTION_CONFLICT', 'IDEMPOTENCY_LEASE_LOST'];

/** What has to come about: otherwise nothing was tested. */
const OCCURRENCES = [
  'recorded',
  'in-progress',
  'unresolved',
  'taken over',
  'later lives',
  'effects',
  'leases lost',
  'release: done',
  'settle: done',
  'purged',
];

let database: TestDatabase;
let stores: TestStore[];
let application: Application;
let lives: Lives;

beforeAll(async () => {
  database = await createTestDatabase();
  lives = await Lives.create(database, KEYS);
  stores = await Promise.all(
    Array.from({ length: STORES }, () => TestStore.start({ database, poolSize: 6 })),
  );
  application = await Application.start({ adapter: 'none', database });
});

afterAll(async () => {
  await application.close();
  await Promise.all(stores.map((store) => store.close()));
  await database.drop();
});

it(
  'an identity has one effect and one answer in each of its lives',
  async () => {
    const random = seededRandom(chooseSeed());
    const run = new Run();
    const workers = Array.from({ length: WORKERS }, (_, index) =>
      new Worker(run, stores[index % STORES]!, random.fork()).work(),
    );
    await Promise.all(workers);
    await run.audit();
    const violations = await run.reckon();
    printFigures('lives', random.seed, { ...Object.fromEntries(run.figures), violations: violations.length });
    expect(violations).toEqual([]);
    for (const occurrence of OCCURRENCES)
      expect([occurrence, run.figures.get(occurrence) ?? 0]).not.toEqual([occurrence, 0]);
  },
  PATIENCE,
);

/** What all workers know. */
class Run {
  readonly figures = new Map<string, number>();
  readonly violations: string[] = [];
  /** Whether an effect is there at the end, by its name. */
  readonly #effects = new Map<string, boolean>();
  /** Lives whose answer was acknowledged, as `key life`. */
  readonly #acknowledged = new Set<string>();
  readonly #replays: { readonly body: string; readonly key: string; readonly since: number }[] = [];
  #rounds = 0;

  /** Whether there is another round. */
  async begins(): Promise<boolean> {
    if (this.#rounds >= ROUNDS || this.violations.length > 0) return false;
    this.#rounds += 1;
    if (this.#rounds % AUDIT === 0) await this.audit();
    return true;
  }

  count(what: string): void {
    this.figures.set(what, (this.figures.get(what) ?? 0) + 1);
  }

  async audit(): Promise<void> {
    this.violations.push(...(await lives.violations()));
  }

  effect(id: string, isThere: boolean): void {
    this.#effects.set(id, isThere);
  }

  replayed(body: string, key: string, since: number): void {
    this.#replays.push({ body, key, since });
  }

  isAcknowledged(key: string, life: number): boolean {
    return this.#acknowledged.has(`${key} ${life}`);
  }

  /** An answer was recorded, and its client may have heard of it. */
  async acknowledge(key: string, body: string): Promise<void> {
    const life = await lives.ofAnswer(body);
    if (life === undefined) this.violations.push(`an acknowledged answer is not there: ${key}, ${body}`);
    else this.#acknowledged.add(`${key} ${life}`);
  }

  /** What shows at the end only. */
  async reckon(): Promise<string[]> {
    const violations = new Set(this.violations);
    const effects = await lives.effects();
    for (const [id, isThere] of this.#effects)
      if (effects.has(id) !== isThere)
        violations.add(isThere ? `an effect is lost: ${id}` : `what was undone took effect: ${id}`);
    for (const { body, key, since } of this.#replays) {
      const life = await lives.ofAnswer(body);
      if (life === undefined || life < since)
        violations.add(`an answer was replayed after its life: ${key}, ${body} of ${life} in ${since}`);
    }
    const released = this.figures.get('release: done') ?? 0;
    if ((await lives.deleted()) > released) violations.add('a record was deleted while it lived');
    for (const key of KEYS) {
      const answer = await lives.answer(key);
      if (typeof answer !== 'string') continue;
      const outcome = await claimOf(stores[0]!, key, { kind: 'lease', lease: 1_000 });
      const body = outcome.kind === 'recorded' ? outcome.record.response?.body.toString() : outcome.kind;
      if (body !== answer) violations.add(`an answer is lost: ${key}, ${answer}, but ${body}`);
      this.figures.set(
        'later lives',
        (this.figures.get('later lives') ?? 0) + (await lives.current(key)) - 1,
      );
    }
    return [...violations];
  }
}

function claimOf(store: TestStore, key: string, mode: ClaimMode): Promise<ClaimOutcome> {
  return store.claim(mode, { identity: { client: 'tests', endpoint: 'lives', key } });
}

let names = 0;

/** Does one thing after the other, as it is drawn. */
class Worker {
  constructor(
    private readonly run: Run,
    private readonly store: TestStore,
    private readonly random: Random,
  ) {}

  async work(): Promise<void> {
    while (await this.run.begins()) {
      const key = this.random.pick(KEYS);
      await this.#act(this.#draw(), key);
    }
  }

  #draw(): Action {
    let left = this.random.below(100);
    for (const [action, chance] of Object.entries(ACTIONS)) {
      left -= chance;
      if (left < 0) return action as Action;
    }
    throw new Error('the chances do not add up');
  }

  async #act(action: Action, key: string): Promise<unknown> {
    const { run, random } = this;
    const identity = { client: 'tests', endpoint: 'lives', key };
    switch (action) {
      case 'transaction':
        return this.#attempt(key, {
          kind: 'transaction',
          isolation: random.pick(ISOLATIONS),
          storesErrors: random.percent(50),
        });
      case 'lease':
        return this.#attempt(key, { kind: 'lease', lease: 500 + random.below(1_000) });
      case 'expire':
        return (await lives.expire(key)).map(() => run.count('expired'));
      case 'lapse':
        return (await lives.lapse(key)).map(() => run.count('lapsed'));
      case 'release': {
        run.count(`release: ${await application.service.release(identity)}`);
        return;
      }
      case 'settle': {
        const { records } = await application.service.list({ state: 'unresolved' });
        const settled = random.percent(50) ? records[0] : identity;
        if (!settled) return undefined;
        const response = { status: 200, body: { settled: ++names } };
        run.count(`settle: ${await application.service.settle(settled, response)}`);
        return;
      }
      case 'purge':
        if ((await application.nest.get(IdempotencyPurgeService).purge()) > 0) run.count('purged');
        return undefined;
    }
  }

  async #attempt(key: string, mode: ClaimMode): Promise<void> {
    const { run, random } = this;
    const life = await lives.current(key);
    const wasAcknowledged = run.isAcknowledged(key, life);
    let outcome = await claimOf(this.store, key, mode);
    run.count(outcome.kind);
    if (outcome.kind === 'recorded') {
      const body = outcome.record.response?.body.toString();
      if (body !== undefined) run.replayed(body, key, life);
      return;
    }
    // An older snapshot may miss what was acknowledged; then the COMMIT fails.
    const isFresh = mode.kind === 'lease' || (mode.isolation ?? 'READ COMMITTED') === 'READ COMMITTED';
    if (isFresh && outcome.kind !== 'in-progress' && wasAcknowledged && (await lives.current(key)) === life)
      run.violations.push(`an acknowledged answer was not found: ${key}, life ${life}, ${outcome.kind}`);
    if (outcome.kind === 'unresolved' && random.percent(70)) {
      const { attempt } = outcome;
      // As an application decides, or asks its provider.
      await delay(random.below(30));
      outcome = await attempt.takeOver();
      if (outcome.kind === 'claimed') {
        run.count('taken over');
        // The first one where what was found is gone.
        if (![1, attempt.attempt + 1].includes(outcome.execution.attempt))
          run.violations.push(`another attempt was taken over than ${attempt.attempt}: ${key}`);
      }
    }
    if (outcome.kind !== 'claimed') return;
    const { execution } = outcome;
    await (mode.kind === 'transaction'
      ? this.#inTransaction(key, execution, mode)
      : this.#underLease(key, execution));
  }

  async #inTransaction(
    key: string,
    execution: Execution,
    { isolation, storesErrors }: Extract<ClaimMode, { kind: 'transaction' }>,
  ): Promise<void> {
    const { run, random } = this;
    const { dataSource } = this.store;
    const id = `effect ${++names}`;
    run.effect(id, false);
    // Behind an older snapshot the life may have ended: the lock finds that out.
    const isOld = isolation === 'REPEATABLE READ' || isolation === 'SERIALIZABLE';
    const work = async (): Promise<void> => {
      currentFrame()!.enterHandler();
      await dataSource.query(
        `INSERT INTO effects (id, key, life, mode)
         SELECT $1, key, life, 'transaction' FROM lives WHERE key = $2 ${isOld ? 'FOR SHARE' : ''}`,
        [id, key],
      );
      await delay(random.below(12));
    };
    const isDone = await this.#tolerates(execution.run(work));
    if (!isDone || random.percent(15)) {
      await (random.percent(50) ? execution.release() : execution.giveUp('unsettled'));
      return;
    }
    const body = `answer ${id}`;
    const how = storesErrors && random.percent(30) ? 'threw' : 'returned';
    if (!(await this.#tolerates(execution.complete(responseOf(body), how)))) return;
    await run.acknowledge(key, body);
    if (how === 'threw') return;
    run.effect(id, true);
    run.count('effects');
  }

  async #underLease(key: string, execution: Execution): Promise<void> {
    const { run, random } = this;
    if (random.percent(10)) return execution.release();
    execution.run(() => currentFrame())!.enterHandler();
    for (let transactions = random.below(3); transactions > 0; transactions--) {
      const id = `effect ${++names}`;
      run.effect(id, false);
      if (await this.#tolerates(this.#fenced(key, execution, id))) run.effect(id, true);
      await delay(random.below(15));
    }
    // Its owner is held up, and may be overtaken.
    if (random.percent(40)) {
      await lives.lapse(key);
      await delay(random.below(60));
      const id = `effect ${++names}`;
      run.effect(id, false);
      if (await this.#tolerates(this.#fenced(key, execution, id))) run.effect(id, true);
    }
    const end = random.below(100);
    if (end < 10) return execution.release();
    if (end < 40) return execution.giveUp('unsettled');
    if (end < 45) return execution.giveUp('unkeepable');
    const body = `answer ${++names}`;
    const isRecorded = await this.#tolerates(
      execution.complete(responseOf(body), random.percent(90) ? 'returned' : 'threw'),
    );
    if (isRecorded) await run.acknowledge(key, body);
  }

  #fenced(key: string, execution: Execution, id: string): Promise<unknown> {
    const { attempt, createdAt } = execution;
    return execution.run(() => {
      const own = currentFrame()!.execution as IdempotencyExecution;
      return own.transaction(async (manager: Pick<DataSource, 'query'>) => {
        await manager.query(
          `INSERT INTO effects (id, key, life, mode, attempt, claimed)
           SELECT $1, key, life, 'lease', $3, $4 FROM lives WHERE key = $2`,
          [id, key, attempt, createdAt],
        );
        await delay(this.random.below(10));
      });
    });
  }

  /** @returns whether it succeeded. */
  async #tolerates(work: Promise<unknown>): Promise<boolean> {
    try {
      await work;
      return true;
    } catch (error) {
      const { error: failure, code } = error as { error?: { code: string }; code?: string };
      const reason = failure?.code ?? code ?? String(error);
      if (reason === 'IDEMPOTENCY_LEASE_LOST') this.run.count('leases lost');
      else if (REFUSALS.includes(reason) || /^40/.test(reason)) this.run.count('conflicts');
      else
        this.run.violations.push(
          `an unexpected failure: ${reason} (${String(error)}; ${String((error as Error).cause)})`,
        );
      return false;
    }
  }
}

function responseOf(body: string): Parameters<Execution['complete']>[0] {
  return { status: 201, headers: [], body: Buffer.from(body) };
}
