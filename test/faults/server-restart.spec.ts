import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { Pool } from 'pg';
import { idempotencyDdl } from '../../migrations/index.js';
import { ADAPTERS, type Application } from '../helpers/application.js';
import { eventually } from '../helpers/conditions.js';
import type { TestDatabase } from '../helpers/database.js';
import { postJson, type HttpResponse } from '../helpers/http.js';
import { startLeaseApplication, type Route } from '../helpers/lease-application.js';
import { startRestartablePostgres, type RestartablePostgres } from '../helpers/restartable-postgres.js';
import { createShop } from '../helpers/shop.js';

const CLIENTS = 8;
const RESTARTS = 3;
/** Requests that are answered between two restarts. */
const BETWEEN = 30;

describe('a database that is restarted under load', () => {
  let server: RestartablePostgres;
  let pool: Pool;

  beforeAll(async () => {
    server = await startRestartablePostgres();
    pool = new Pool({ connectionString: server.url, max: 2 });
    pool.on('error', () => undefined);
    await pool.query(idempotencyDdl().up);
    await createShop({ query: (sql: string) => pool.query(sql) } as unknown as TestDatabase);
  }, 600_000);

  afterAll(async () => {
    await pool.end();
    await server.stop();
  });

  /** Clients that send one request after the other, each until it has an answer, through several restarts. */
  async function underLoad(app: Application, route: Route): Promise<Map<string, HttpResponse>> {
    const answers = new Map<string, HttpResponse>();
    let isOver = false;
    const client = async (name: number): Promise<void> => {
      for (let count = 0; !isOver; count++) {
        const key = `${route}-${name}-${count}`;
        answers.set(key, await untilAnswered(app, route, key));
      }
    };
    const clients = Promise.all(Array.from({ length: CLIENTS }, (_, name) => client(name)));
    for (let restart = 0; restart < RESTARTS; restart++) {
      const before = answers.size;
      await eventually(() => answers.size >= before + BETWEEN, { timeoutMs: 20_000 });
      await server.restart();
    }
    const before = answers.size;
    await eventually(() => answers.size >= before + BETWEEN, { timeoutMs: 20_000 });
    isOver = true;
    await clients;
    return answers;
  }

  const effects = async (): Promise<Map<string, number>> => {
    const { rows } = await pool.query<{ item: string; count: number }>(
      'SELECT item, count(*)::int AS count FROM orders GROUP BY item',
    );
    return new Map(rows.map(({ item, count }) => [item, count]));
  };

  describe.each(ADAPTERS)('(%s)', (adapter) => {
    it.each(['transaction', 'refuse', 'rerun'] as const)(
      'leaves every client with an answer in the end, without a restart of the application (%s)',
      async (route) => {
        await pool.query('TRUNCATE orders, idempotency_records');
        const app = await startLeaseApplication({
          adapter,
          databaseUrl: server.url,
          poolSize: 4,
          idempotency: { acquireTimeout: 1_000 },
        });
        app.acts(({ execution, orders, body }) =>
          execution.transaction(() => orders.save({ item: String(body['key']), price: 1 })),
        );
        const answers = await underLoad(app, route);
        await app.close();
        const done = await effects();
        for (const [key, { status }] of answers) {
          // What stays open with `refuse` may have taken effect; whatever was answered with 201 has.
          if (status === 409) expect(route).toBe('refuse');
          else expect([key, status, done.get(key)! >= 1]).toEqual([key, 201, true]);
        }
        const repeated = [...done].filter(([, count]) => count > 1);
        if (route !== 'rerun') expect(repeated).toEqual([]);
        expect([...done.keys()].filter((key) => !answers.has(key))).toEqual([]);
      },
      90_000,
    );
  });
});

/** Retries for as long as it is told to: while the request runs, or the database cannot be had. */
function untilAnswered(app: Application, route: Route, key: string): Promise<HttpResponse> {
  return eventually(
    async () => {
      const answer = await postJson(`${app.url}/${route}`, { key }, { 'Idempotency-Key': key });
      const isFinal = answer.status === 201 || answer.text.includes('IDEMPOTENCY_OUTCOME_UNRESOLVED');
      if (!isFinal) throw new Error(`${answer.status} ${answer.text}`);
      return answer;
    },
    { timeoutMs: 30_000 },
  );
}
