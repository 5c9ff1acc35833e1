import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { ONE_ADAPTER, Application, type Handler } from '../helpers/application.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import type { HttpResponse } from '../helpers/http.js';
import { createShop } from '../helpers/shop.js';

const REQUESTS = 100;
const AT_A_TIME = 10;

/** Keys as clients make them; neighbours of one page of the index are what serializable transactions fall out over. */
const KEYS: Readonly<Record<string, (index: number) => string>> = {
  'ordered by time': (index) => `01900000-0000-7000-8000-${String(index).padStart(12, '0')}`,
  'all over the place': (index) =>
    `${(index * 7_919) % 1_000}-0000-4000-8000-${String(index).padStart(12, '0')}`,
};

const insert: Handler = ({ dataSource }) =>
  dataSource.query(`INSERT INTO orders (item, price) VALUES ('own', 1) RETURNING id`);
/** What a handler of lease mode writes outside of `execution.transaction` is its own affair. */
const nothing: Handler = () => ({ done: true });

describe.each(ONE_ADAPTER)('handlers that do not get in each other’s way (%s)', (adapter) => {
  describe.each(['read committed', 'repeatable read', 'serializable'])(
    'on a database that is %s',
    (level) => {
      let database: TestDatabase;
      let app: Application;

      beforeAll(async () => {
        database = await createTestDatabase();
        await createShop(database);
        await database.query(
          `ALTER DATABASE "${database.name}" SET default_transaction_isolation = '${level}'`,
        );
        app = await Application.start({
          adapter,
          database,
          poolSize: AT_A_TIME,
          routes: {
            serializable: { isolation: 'SERIALIZABLE' },
            'repeatable-read': { isolation: 'REPEATABLE READ' },
            lease: { mode: 'lease' },
          },
        });
      });

      afterEach(() => app.clear());

      afterAll(async () => {
        await app.close();
        await database.drop();
      });

      /** So many at any time, until all are answered. */
      const sendAll = async (route: string, keyOf: (index: number) => string): Promise<HttpResponse[]> => {
        const answers: HttpResponse[] = [];
        let next = 0;
        const worker = async (): Promise<void> => {
          for (let index = next++; index < REQUESTS; index = next++)
            answers[index] = await app.send(route, keyOf(index));
        };
        await Promise.all(Array.from({ length: AT_A_TIME }, worker));
        return answers;
      };

      const statuses = (answers: readonly HttpResponse[]): Record<number, number> =>
        answers.reduce<Record<number, number>>(
          (counts, { status }) => ({ ...counts, [status]: (counts[status] ?? 0) + 1 }),
          {},
        );

      const ROUTES = [
        ['run', insert],
        ['serializable', insert],
        ['repeatable-read', insert],
        ['lease', nothing],
      ] as const;

      describe.each(ROUTES)('on the route %s', (route, handler) => {
        it.each(Object.keys(KEYS))(
          'are all answered 201, and so are their retries: keys %s',
          async (kind) => {
            app.acts(handler);
            const first = await sendAll(route, KEYS[kind]!);
            expect(statuses(first)).toEqual({ 201: REQUESTS });
            const retries = await sendAll(route, KEYS[kind]!);
            expect(retries.map(({ text }) => text)).toEqual(first.map(({ text }) => text));
            expect(retries.every(({ headers }) => headers['idempotency-replayed'] === 'true')).toBe(true);
            const { orders, records } = await app.state();
            expect({ orders, records }).toEqual({
              orders: handler === insert ? REQUESTS : 0,
              records: REQUESTS,
            });
          },
        );
      });
    },
  );
});
