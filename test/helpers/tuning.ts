import type { TuningOptions } from 'nestjs-pg-idempotency';

const BY_NAME: Readonly<Record<string, TuningOptions>> = {
  '': {},
  pipeline: { pipeline: true },
  all: { pipeline: true, preparedStatements: 'all' },
};

/**
 * What the applications of the tests are tuned with, unless a test says otherwise: `TUNING=all npm test -- test/e2e` runs them
 * with everything on. Child processes inherit it.
 */
export const TUNING = tuningNamed(process.env['TUNING'] ?? (process.env['PASS'] === 'tuned' ? 'all' : ''));

function tuningNamed(name: string): TuningOptions {
  const tuning = BY_NAME[name];
  if (!tuning) throw new Error(`There is no TUNING=${name}; there are ${Object.keys(BY_NAME).join(', ')}`);
  return tuning;
}
