/*
 * The same steps against what is broken on purpose: a model that finds nothing wrong there could not be relied on
 * elsewhere. Each fault is shown by the shortest sequence that must bring it to light, and has to be found by random ones.
 */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import fc, { type AsyncCommand } from 'fast-check';
import { ADAPTERS } from '../helpers/application.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { amount, chooseSeed, printFigures } from '../helpers/fault-run.js';
import { createJournal, type PlantedFault } from './application.js';
import { sequences } from './arbitraries.js';
import { KINDS, Model } from './commands.js';
import { startTwins } from './instances.js';
import { SHORT } from './tours.js';
import { World, type Sabotage } from './world.js';

type Sequence = Iterable<AsyncCommand<Model, World>>;

interface Control {
  readonly name: string;
  readonly fault?: PlantedFault;
  readonly sabotage?: Sabotage;
  /** The shortest sequence that brings it to light, and what is said of it. */
  readonly shown: Sequence;
  readonly by: RegExp;
}

const RUN_AGAIN = /^P1: had to be a replay, but there came an answer 201/;
const THIS_RECORD = 'WHERE client = $1 AND endpoint = $2 AND key = $3';

const CONTROLS: readonly Control[] = [
  {
    name: 'handlers that are unprotected',
    fault: 'handlers are unprotected',
    sabotage: { onlyAnswers: true },
    shown: SHORT.duplicate,
    by: RUN_AGAIN,
  },
  {
    name: 'handlers that are unprotected, of requests at once',
    fault: 'handlers are unprotected',
    sabotage: { onlyAnswers: true },
    shown: SHORT.atOnce,
    by: RUN_AGAIN,
  },
  {
    name: 'clients who see the records of others',
    fault: 'all clients are one',
    sabotage: { onlyAnswers: true },
    shown: SHORT.otherClient,
    by: /^P1: attempt 1 had to run and answer 201, but there came a replay/,
  },
  {
    name: 'another request that is replayed',
    fault: 'bodies do not count',
    shown: SHORT.changed,
    by: /^P5: had to be refused with IDEMPOTENCY_KEY_REUSED, but there came a replay/,
  },
  {
    name: 'a write that outlives its transaction',
    fault: 'writes go past the transaction',
    shown: SHORT.failed,
    by: /"effects":1.*, and not .*"effects":0/,
  },
  {
    name: 'a record that is gone',
    sabotage: { statement: `DELETE FROM idempotency_records ${THIS_RECORD}` },
    shown: SHORT.duplicate,
    by: RUN_AGAIN,
  },
  {
    name: 'a record that expired early',
    sabotage: { statement: `UPDATE idempotency_records SET expires_at = now() ${THIS_RECORD}` },
    shown: SHORT.duplicate,
    by: RUN_AGAIN,
  },
  {
    name: 'a body with another byte',
    sabotage: {
      statement: `UPDATE idempotency_records SET response_body = response_body || ' ' ${THIS_RECORD}`,
    },
    shown: SHORT.duplicate,
    by: /^P2: the replay is not what the first client was sent: body/,
  },
  {
    name: 'headers that were forgotten',
    sabotage: { statement: `UPDATE idempotency_records SET response_headers = '[]' ${THIS_RECORD}` },
    shown: SHORT.duplicate,
    by: /^P2: the replay is not what the first client was sent: headers/,
  },
  {
    name: 'a cookie that is replayed',
    sabotage: {
      statement: `UPDATE idempotency_records
                     SET response_headers = response_headers::text::jsonb || '[["set-cookie", "session=1"]]' ${THIS_RECORD}`,
    },
    shown: SHORT.duplicate,
    by: /^P2: the replay .* headers .*set-cookie/,
  },
  {
    name: 'an effect that was lost',
    sabotage: { statement: `DELETE FROM effects ${THIS_RECORD}` },
    shown: SHORT.duplicate,
    by: /"effects":0.*, and not .*"effects":1/,
  },
  {
    name: 'an unknown outcome that was forgotten',
    sabotage: { statement: `DELETE FROM idempotency_records ${THIS_RECORD} AND status = 'processing'` },
    shown: SHORT.unresolved,
    by: /^P6\/P7: had to be refused with IDEMPOTENCY_OUTCOME_UNRESOLVED, but there came an answer/,
  },
];

/** What can be done without a process that dies. */
const HARMLESS = KINDS.filter((kind) => kind !== 'kill' && kind !== 'lapse');
const MOST_STEPS = 40;
const RUNS = 50;
/** Whether what was found is made as short as can be: it takes a while, and shows that counterexamples can be read. */
const SHRINKS = amount({ short: 0, full: 1 }) === 1;

describe.each(ADAPTERS)('the model finds out (%s)', (adapter) => {
  let database: TestDatabase;

  beforeAll(async () => {
    database = await createTestDatabase();
    await createJournal(database);
  });

  afterAll(async () => {
    await database.drop();
  });

  const play = async (world: World, sequence: Sequence): Promise<void> => {
    await world.begin();
    await fc.asyncModelRun(() => ({ model: new Model(), real: world }), sequence);
  };

  it.each(CONTROLS)('$name', async ({ name, fault, sabotage, shown, by }) => {
    const options = { adapter, databaseUrl: database.url, name: 'control', ...(fault && { fault }) };
    const instances = await startTwins(options);
    try {
      const world = new World(database, instances, sabotage);
      await expect(play(world, shown)).rejects.toMatchObject({
        name: 'Violation',
        message: expect.stringMatching(by),
      });
      const seed = chooseSeed();
      const found = await fc.check(
        fc.asyncProperty(sequences(HARMLESS, MOST_STEPS), (sequence) => play(world, sequence)),
        { seed, numRuns: RUNS, endOnFailure: !SHRINKS },
      );
      const steps = [...(found.counterexample?.[0] ?? [])].length;
      printFigures(`control (${adapter}): ${name}`, seed, { runs: found.numRuns, steps });
      expect(found).toMatchObject({ failed: true, errorInstance: { name: 'Violation' } });
    } finally {
      await instances.close();
    }
  });
});
