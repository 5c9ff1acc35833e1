/*
 * Random sequences of requests, deaths and operations against two instances of an application, each step held against
 * the model of the promises in model.ts.
 *
 * A run prints its seed. `SEED=… npm test -- test/property` repeats it, including the search for the shortest
 * counterexample, whose steps fast-check prints one per line; `FAULTS=full` makes more runs of the same beginning. The path
 * that fast-check prints begins with the number of the run: `FROM=41 SEED=…` begins there.
 */
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { ADAPTERS } from '../helpers/application.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { amount, chooseSeed, printFigures } from '../helpers/fault-run.js';
import { createJournal } from './application.js';
import { sequences } from './arbitraries.js';
import { KINDS, Model } from './commands.js';
import { startProcesses } from './instances.js';
import { TOURS } from './tours.js';
import { World, type Instances } from './world.js';

/** The tours, and random sequences. */
const RUNS = TOURS.length + amount({ short: 4, full: 60 });
/** Milliseconds. A counterexample is searched for until it is over. */
const PATIENCE = amount({ short: 900_000, full: 3_600_000 });

/** What has to come about besides each kind of step: otherwise nothing was tested. */
const OCCURRENCES = [
  'own',
  'replay',
  'further attempt',
  'IDEMPOTENCY_IN_PROGRESS',
  'IDEMPOTENCY_KEY_REUSED',
  'IDEMPOTENCY_OUTCOME_UNRESOLVED',
  'IDEMPOTENCY_RESPONSE_NOT_KEPT',
  'IDEMPOTENCY_RESPONSE_TOO_LARGE',
  'purged',
  'release: done',
  'release: absent',
  'release: running',
  'settle: done',
  'settle: absent',
  'settle: not-applicable',
];

describe.each(ADAPTERS)('the promises, against a model (%s)', (adapter) => {
  let database: TestDatabase;
  let instances: Instances;

  beforeAll(async () => {
    database = await createTestDatabase();
    await createJournal(database);
    instances = startProcesses({ adapter, databaseUrl: database.url, name: 'property' });
  });

  afterAll(async () => {
    await instances.close();
    await database.drop();
  }, PATIENCE);

  it(
    'hold in every sequence of steps',
    async () => {
      const seed = chooseSeed();
      const world = new World(database, instances);
      const property = fc.asyncProperty(sequences(KINDS), async (sequence) => {
        await world.begin();
        const model = new Model();
        await fc.asyncModelRun(() => ({ model, real: world }), sequence);
        await world.atRest();
        world.count('runs');
      });
      const from = process.env['FROM'];
      let violations = 1;
      try {
        const examples = TOURS.map((tour): [typeof tour] => [tour]);
        const start = from === undefined ? {} : { path: from };
        await fc.assert(property, { seed, numRuns: RUNS, examples, ...start });
        violations = 0;
      } finally {
        printFigures(`model (${adapter})`, seed, { ...Object.fromEntries(world.figures), violations });
      }
      if (from === undefined) {
        const seen = [...world.figures.keys()];
        expect(seen).toEqual(expect.arrayContaining([...KINDS, ...OCCURRENCES]));
      }
    },
    PATIENCE,
  );
});
