import { describe, expect, it } from '@jest/globals';
import { Controller, Post } from '@nestjs/common';
import {
  Idempotent,
  IdempotencyModule,
  sharedClient,
  type IdempotencyModuleOptions,
  type IdempotentRouteOptions,
} from 'nestjs-pg-idempotency';
import { startApp } from '../helpers/application.js';
import { createTestDatabase } from '../helpers/database.js';

type Options = Partial<Record<keyof IdempotencyModuleOptions, unknown>>;

const client = sharedClient('tests');
const forRoot = (options: Options): unknown =>
  IdempotencyModule.forRoot({ client, ...options } as IdempotencyModuleOptions);

const ACCEPTED: Options[] = [
  { whenInProgress: 'reject' },
  { whenInProgress: { wait: '5s' } },
  { whenInProgress: { wait: 250 } },
  ...[409, 425, 503].map((inProgress) => ({ answers: { inProgress } })),
  { answers: {} },
  { maxWaiters: 0 },
  { maxWaiters: 10_000 },
  { observer: { observe: () => undefined } },
  { mode: 'transaction' },
  { mode: 'lease', lease: '1s', onOutcomeUnknown: 'rerun' },
  { mode: 'lease', lease: 86_400_000, onOutcomeUnknown: 'refuse' },
  { mode: 'lease', onOutcomeUnknown: () => ({ outcome: 'unknown' }) },
];

/** An option that is wrong, and what the error says of it. */
const REFUSED: [Options, string][] = [
  [{ whenInProgress: 'wait' }, 'option "whenInProgress" must be'],
  [{ whenInProgress: null }, 'option "whenInProgress" must be'],
  [{ whenInProgress: {} }, 'option "whenInProgress" must be'],
  [{ whenInProgress: { wait: 'soon' } }, 'option "whenInProgress" must be'],
  [{ whenInProgress: { wait: '5s', poll: 1 } }, 'option "whenInProgress" must be'],
  [{ whenInProgress: { wait: 2 ** 31 } }, 'option "whenInProgress" must be'],
  [{ answers: { inProgress: 429 } }, 'option "answers.inProgress" must be'],
  [{ answers: { running: 409 } }, 'unknown option "answers.running"; known are inProgress'],
  [{ answers: 503 }, 'option "answers" must be an object'],
  [{ mode: 'lock' }, 'option "mode" must be'],
  [{ lease: 999 }, 'option "lease" must be'],
  [{ lease: '2d' }, 'option "lease" must be'],
  [{ lease: 'long' }, 'option "lease" must be'],
  [{ onOutcomeUnknown: 'retry' }, 'option "onOutcomeUnknown" must be'],
];

const REFUSED_OF_THE_MODULE: [Options, string][] = [
  [{ maxWaiters: -1 }, 'option "maxWaiters" must'],
  [{ maxWaiters: 1.5 }, 'option "maxWaiters" must'],
  [{ observer: () => undefined }, 'option "observer" must be an object with a method observe(event)'],
  [{ observer: {} }, 'option "observer" must be an object with a method observe(event)'],
];

describe('options of waiting and leases', () => {
  it.each(ACCEPTED)('accept %j', (options) => {
    expect(() => forRoot(options)).not.toThrow();
  });

  it.each([...REFUSED, ...REFUSED_OF_THE_MODULE])('refuse %j for the module', (options, message) => {
    expect(() => forRoot(options)).toThrow(
      `IDEMPOTENCY_OPTIONS_INVALID: IdempotencyModule.forRoot(): ${message}`,
    );
  });

  it('are refused for a route as for the module, and those of the module alone are unknown there', async () => {
    const database = await createTestDatabase();
    try {
      for (const [options, message] of REFUSED) await expectRefused(database.url, options, message);
      await expectRefused(database.url, { maxWaiters: 1 }, 'unknown option "maxWaiters"');
      await expectRefused(
        database.url,
        { observer: { observe: () => undefined } },
        'unknown option "observer"',
      );
    } finally {
      await database.drop();
    }
  });
});

async function expectRefused(databaseUrl: string, options: Options, message: string): Promise<void> {
  @Controller('routes')
  class RoutesController {
    @Post()
    @Idempotent(options as IdempotentRouteOptions)
    run(): void {
      // Never called: the application does not boot.
    }
  }
  await expect(
    startApp({ adapter: 'express', databaseUrl, controllers: [RoutesController] }),
  ).rejects.toThrow(`@Idempotent() on RoutesController.run: ${message}`);
}
