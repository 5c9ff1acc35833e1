import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import type { IdempotencyService } from 'nestjs-pg-idempotency';
import { currentFrame } from '../../lib/core/ambient.js';
import type { Identity } from '../../lib/core/identity.js';
import type { Claim, ClaimOutcome, Execution } from '../../lib/core/store.js';
import { Application } from '../helpers/application.js';
import { eventually } from '../helpers/conditions.js';
import { holdFirstCopy, insertsRecord, writesOver } from '../helpers/late-copies.js';
import { leaseRow } from '../helpers/leases.js';
import { attemptOf, codeOf, executionOf, LEASE, RESPONSE, TestStore, TRANSACTION } from '../helpers/store.js';

/*
 * A claim is sent twice, and the network holds up its first copy. The library gives that connection
 * up and sends the claim on another one. Some time after the second copy is answered, the first one
 * arrives. It may find the identity free, and claim it for a request that has long been answered.
 */

/** Milliseconds. The second copy is sent after half of it. */
const ACQUIRE_TIMEOUT = 2_000;
/** The library looks for late copies about each second. */
const SOON = { timeoutMs: 20_000 };

/** Those who take part in one order of events. */
interface Cast {
  /** Sends through the network that holds up the first copy. */
  readonly store: TestStore;
  /** Another process. */
  readonly rival: TestStore;
  readonly operator: IdempotencyService;
  readonly identity: Identity;
  readonly facts: Partial<Claim>;
}

type End = 'nothing' | 'the lapsed attempt' | 'the record';

/** What happens, in this order. */
interface Order {
  readonly before?: (cast: Cast) => Promise<unknown>;
  /** Sends what is held up. Default: a claim. */
  readonly sends?: (cast: Cast) => Promise<() => Promise<ClaimOutcome>>;
  /** After the first copy was sent, and before the second one arrives. */
  readonly between?: (cast: Cast) => Promise<unknown>;
  /** What the second copy finds. An error has its code. */
  readonly answer: ClaimOutcome['kind'] | 'IDEMPOTENCY_STORE_UNAVAILABLE' | 'IDEMPOTENCY_RECORD_UNREADABLE';
  /** After the answer, and before the first copy arrives. */
  readonly after?: (cast: Cast, outcome: ClaimOutcome) => Promise<unknown>;
  readonly leaves: End;
}

const begin = (execution: Execution): Execution => {
  execution.run(() => currentFrame())!.enterHandler();
  return execution;
};

/** The rival holds the identity by a lease from before the claim is sent. */
const rivals = new WeakMap<Cast, Execution>();
const rivalHolds = async (cast: Cast): Promise<unknown> =>
  rivals.set(cast, await cast.rival.execution(LEASE, cast.facts));
const rivalRunsATransaction = async (cast: Cast): Promise<unknown> =>
  rivals.set(cast, await cast.rival.execution(TRANSACTION, cast.facts));
const rivalReleases = (cast: Cast): Promise<void> => rivals.get(cast)!.release();
const rivalCompletes = (cast: Cast): Promise<void> => rivals.get(cast)!.complete(RESPONSE, 'returned');
const rivalGivesUp = (cast: Cast): Promise<void> => begin(rivals.get(cast)!).giveUp('unsettled');
/** The rival claims and completes. */
const rivalRecords = async (cast: Cast): Promise<unknown> => (await rivalHolds(cast), rivalCompletes(cast));
/** The rival leaves an attempt whose outcome is unknown. */
const rivalLeaves = async (cast: Cast): Promise<unknown> => (await rivalHolds(cast), rivalGivesUp(cast));
const rivalTakesOver = async (cast: Cast): Promise<unknown> => {
  const attempt = attemptOf(await cast.rival.claim(LEASE, cast.facts));
  return rivals.set(cast, executionOf(await attempt.takeOver()));
};

const operatorReleases = async ({ operator, identity }: Cast): Promise<void> =>
  expect(await operator.release(identity)).toBe('done');
const expires = ({ store, identity }: Cast): Promise<unknown> =>
  store.database.query(
    `UPDATE idempotency_records SET expires_at = clock_timestamp() - interval '1 second' WHERE key = $1`,
    [identity.key],
  );
const isPurged = ({ store, identity }: Cast): Promise<unknown> =>
  store.database.query('DELETE FROM idempotency_records WHERE key = $1', [identity.key]);
const isWrittenByANewerRelease = ({ store, identity }: Cast): Promise<unknown> =>
  store.database.query('UPDATE idempotency_records SET format_version = 99 WHERE key = $1', [identity.key]);

const releases = (_cast: Cast, outcome: ClaimOutcome): Promise<void> => executionOf(outcome).release();
const beginsAndReleases = (_cast: Cast, outcome: ClaimOutcome): Promise<void> =>
  begin(executionOf(outcome)).release();
const completes = (_cast: Cast, outcome: ClaimOutcome): Promise<void> =>
  begin(executionOf(outcome)).complete(RESPONSE, 'returned');

/** Steps one behind the other. */
const each =
  (...steps: ((cast: Cast, outcome: ClaimOutcome) => Promise<unknown>)[]) =>
  async (cast: Cast, outcome: ClaimOutcome): Promise<void> => {
    for (const step of steps) await step(cast, outcome);
  };
const all =
  (...steps: ((cast: Cast) => Promise<unknown>)[]) =>
  async (cast: Cast): Promise<void> => {
    for (const step of steps) await step(cast);
  };

const CLAIMS: [name: string, order: Order][] = [
  ['claimed; released before the handler began', { answer: 'claimed', after: releases, leaves: 'nothing' }],
  ['claimed; released by the handler', { answer: 'claimed', after: beginsAndReleases, leaves: 'nothing' }],
  [
    'claimed; released; a retry came and went',
    { answer: 'claimed', after: each(releases, rivalHolds, rivalReleases), leaves: 'nothing' },
  ],
  [
    'claimed; released; a retry is recorded',
    { answer: 'claimed', after: each(releases, rivalRecords), leaves: 'the record' },
  ],
  ['claimed; completed', { answer: 'claimed', after: completes, leaves: 'the record' }],
  [
    'in progress by a lease; that is released',
    { before: rivalHolds, answer: 'in-progress', after: rivalReleases, leaves: 'nothing' },
  ],
  [
    'in progress by a lease; that is recorded',
    { before: rivalHolds, answer: 'in-progress', after: rivalCompletes, leaves: 'the record' },
  ],
  [
    'in progress by a lease; that is recorded, and released by an operator',
    {
      before: rivalHolds,
      answer: 'in-progress',
      after: each(rivalCompletes, operatorReleases),
      leaves: 'nothing',
    },
  ],
  [
    'in progress by a transaction; that is rolled back',
    { before: rivalRunsATransaction, answer: 'in-progress', after: rivalReleases, leaves: 'nothing' },
  ],
  [
    'recorded; released by an operator',
    {
      before: rivalHolds,
      between: rivalCompletes,
      answer: 'recorded',
      after: operatorReleases,
      leaves: 'nothing',
    },
  ],
  [
    'recorded; expired and purged',
    {
      before: rivalHolds,
      between: rivalCompletes,
      answer: 'recorded',
      after: each(expires, isPurged),
      leaves: 'nothing',
    },
  ],
  [
    'an unknown outcome; released by an operator',
    {
      before: rivalHolds,
      between: rivalGivesUp,
      answer: 'unresolved',
      after: operatorReleases,
      leaves: 'nothing',
    },
  ],
  [
    'an unknown outcome; taken over and released by the handler',
    {
      before: rivalHolds,
      between: rivalGivesUp,
      answer: 'unresolved',
      after: async (cast, outcome) => beginsAndReleases(cast, await attemptOf(outcome).takeOver()),
      leaves: 'nothing',
    },
  ],
  [
    'an expired record, which it takes; released',
    {
      before: rivalHolds,
      between: all(rivalCompletes, expires),
      answer: 'claimed',
      after: releases,
      leaves: 'nothing',
    },
  ],
  [
    'a record of a newer release; released by an operator',
    {
      before: rivalHolds,
      between: all(rivalCompletes, isWrittenByANewerRelease),
      answer: 'IDEMPOTENCY_RECORD_UNREADABLE',
      after: operatorReleases,
      leaves: 'nothing',
    },
  ],
];

/** Finds the attempt of the rival lapsed, and takes it over. */
const takesOver = async ({ store, facts }: Cast): Promise<() => Promise<ClaimOutcome>> => {
  const attempt = attemptOf(await store.claim(LEASE, facts));
  return () => attempt.takeOver();
};
const LAPSED = { before: rivalLeaves, sends: takesOver } as const;
const EXPIRED = { before: all(rivalRecords, expires) } as const;

const TAKE_OVERS: [name: string, order: Order][] = [
  [
    'a lapsed attempt: taken over; released before the handler began',
    { ...LAPSED, answer: 'claimed', after: releases, leaves: 'the lapsed attempt' },
  ],
  [
    'a lapsed attempt: taken over; released by the handler; the next request lapses too',
    {
      ...LAPSED,
      answer: 'claimed',
      after: each(beginsAndReleases, rivalLeaves),
      leaves: 'the lapsed attempt',
    },
  ],
  [
    'a lapsed attempt: taken over; released by the handler',
    { ...LAPSED, answer: 'claimed', after: beginsAndReleases, leaves: 'nothing' },
  ],
  [
    'a lapsed attempt: taken over; completed',
    { ...LAPSED, answer: 'claimed', after: completes, leaves: 'the record' },
  ],
  [
    'a lapsed attempt: a rival was faster; that is released before its handler began',
    {
      ...LAPSED,
      between: rivalTakesOver,
      answer: 'in-progress',
      after: rivalReleases,
      leaves: 'the lapsed attempt',
    },
  ],
  [
    'a lapsed attempt: a rival was faster; that is recorded',
    {
      ...LAPSED,
      between: rivalTakesOver,
      answer: 'in-progress',
      after: rivalCompletes,
      leaves: 'the record',
    },
  ],
  [
    'a lapsed attempt: a rival was faster; that is released by an operator, and the next request lapses too',
    {
      ...LAPSED,
      between: rivalTakesOver,
      answer: 'in-progress',
      after: each(rivalGivesUp, operatorReleases, rivalLeaves),
      leaves: 'the lapsed attempt',
    },
  ],
  [
    'a lapsed attempt: an operator released it, so that it is claimed; released',
    { ...LAPSED, between: operatorReleases, answer: 'claimed', after: releases, leaves: 'nothing' },
  ],
  [
    'an expired record: taken over; released',
    { ...EXPIRED, answer: 'claimed', after: releases, leaves: 'nothing' },
  ],
  [
    'an expired record: taken over; released; the record of the retry expires too',
    { ...EXPIRED, answer: 'claimed', after: each(releases, rivalRecords, expires), leaves: 'nothing' },
  ],
  [
    'an expired record: taken over; completed',
    { ...EXPIRED, answer: 'claimed', after: completes, leaves: 'the record' },
  ],
  [
    'an expired record: a rival was faster; its record expires too',
    {
      ...EXPIRED,
      between: rivalHolds,
      answer: 'in-progress',
      after: each(rivalCompletes, expires),
      leaves: 'nothing',
    },
  ],
  [
    'an expired record: purged, so that it is claimed; released',
    { ...EXPIRED, between: isPurged, answer: 'claimed', after: releases, leaves: 'nothing' },
  ],
];

describe('a copy of a claim in lease mode that arrives late', () => {
  let store: TestStore;
  let rival: TestStore;
  let application: Application;
  let keys = 0;

  beforeAll(async () => {
    store = await TestStore.start({ behindProxy: true, acquireTimeout: ACQUIRE_TIMEOUT });
    const { database } = store;
    rival = await TestStore.start({ database });
    application = await Application.start({ adapter: 'none', database });
  });

  afterEach(() => store.reset());

  afterAll(async () => {
    await application.close();
    await rival.close();
    await store.close();
  });

  /** The store takes a claim back for a minute: each order has a key of its own. */
  const castOf = (): Cast => {
    const identity = { client: 'c', endpoint: 'e', key: `late-${++keys}-copy` };
    return { store, rival, operator: application.service, identity, facts: { identity } };
  };

  const recordOf = async ({ identity: { key } }: Cast): Promise<unknown> =>
    (await store.database.query('SELECT * FROM idempotency_records WHERE key = $1', [key]))[0];

  const expectNothing = async ({ identity, facts }: Cast): Promise<void> => {
    await eventually(async () => expect(await leaseRow(store.database, identity.key)).toBeUndefined(), SOON);
    // Another copy may have arrived since, and be taken back as well.
    const retry = await eventually(async () => {
      const outcome = await rival.claim(LEASE, facts);
      return outcome.kind === 'claimed' && outcome.execution;
    }, SOON);
    expect(retry.attempt).toBe(1);
    await retry.complete(RESPONSE, 'returned');
    expect(await store.claim(LEASE, facts)).toMatchObject({ kind: 'recorded' });
  };

  const expectLapsedAttempt = async ({ identity, facts }: Cast): Promise<void> => {
    await eventually(
      async () =>
        expect(await leaseRow(store.database, identity.key)).toMatchObject({
          ...{ status: 'processing', attempt: 1, lapsed: true },
        }),
      SOON,
    );
    expect(attemptOf(await rival.claim(LEASE, facts))).toMatchObject({ attempt: 1 });
  };

  const run = async (order: Order, isHeld: (key: string) => (chunk: Buffer) => boolean): Promise<void> => {
    const cast = castOf();
    await order.before?.(cast);
    const send = (await order.sends?.(cast)) ?? (() => store.claim(LEASE, cast.facts));
    const copy = holdFirstCopy(store.proxy, isHeld(cast.identity.key));
    const sending = send();
    const outcome = sending.catch(() => undefined);
    await copy.held;
    await order.between?.(cast);
    copy.letOthersPass();
    if (order.answer.startsWith('IDEMPOTENCY_')) expect(await codeOf(sending)).toBe(order.answer);
    else expect((await sending).kind).toBe(order.answer);
    await order.after?.(cast, (await outcome)!);
    const before = await recordOf(cast);
    await copy.deliver();
    if (order.leaves === 'nothing') return expectNothing(cast);
    if (order.leaves === 'the lapsed attempt') return expectLapsedAttempt(cast);
    expect(await recordOf(cast)).toEqual(before);
    expect(await store.claim(LEASE, cast.facts)).toMatchObject({
      kind: 'recorded',
      record: { response: RESPONSE },
    });
    expect(await recordOf(cast)).toEqual(before);
  };

  it.each(CLAIMS)('is taken back (the claim found: %s)', async (_name, order) => {
    await run(order, insertsRecord);
  });

  it.each(TAKE_OVERS)('is taken back (a takeover of %s)', async (_name, order) => {
    await run(order, writesOver);
  });

  it('is taken back where no copy was answered', async () => {
    const cast = castOf();
    const copy = holdFirstCopy(store.proxy, insertsRecord(cast.identity.key));
    expect(await codeOf(store.claim(LEASE, cast.facts))).toBe('IDEMPOTENCY_STORE_UNAVAILABLE');
    await copy.deliver();
    await expectNothing(cast);
  });

  it('does no harm to a retry that runs', async () => {
    const cast = castOf();
    const copy = holdFirstCopy(store.proxy, insertsRecord(cast.identity.key));
    const claiming = store.claim(LEASE, cast.facts);
    await copy.held;
    copy.letOthersPass();
    await executionOf(await claiming).release();
    const retry = await rival.execution(LEASE, cast.facts);
    const before = (await leaseRow(store.database, cast.identity.key))!;
    await copy.deliver();
    // Another claim that is taken back shows that the library has looked since.
    const another = castOf();
    const second = holdFirstCopy(store.proxy, insertsRecord(another.identity.key));
    const reclaiming = store.claim(LEASE, another.facts);
    await second.held;
    second.letOthersPass();
    await executionOf(await reclaiming).release();
    await second.deliver();
    await expectNothing(another);
    const { owner_token, status, attempt } = (await leaseRow(store.database, cast.identity.key))!;
    expect({ owner_token, status, attempt }).toEqual({
      ...{ owner_token: before.owner_token, status: 'processing', attempt: 1 },
    });
    await retry.complete(RESPONSE, 'returned');
    expect(await store.claim(LEASE, cast.facts)).toMatchObject({ kind: 'recorded' });
  });
});
