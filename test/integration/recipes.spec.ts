import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { IdempotencyService } from 'nestjs-pg-idempotency';
import { createHmac, randomUUID } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { startApp } from '../helpers/application.js';
import { eventually } from '../helpers/conditions.js';
import { createEmptyDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson, startRequest, type HttpResponse } from '../helpers/http.js';
import { startOutsideWorld, type OutsideWorld } from '../helpers/outside-world.js';
import { startRecipe, writeFiles, type PageFiles, type RunningRecipe } from '../helpers/recipes.js';
import { typeErrors } from '../helpers/type-check.js';

const FOLDER = 'docs/recipes';
/** Processes and compilers take their time where several tests share a machine. */
const PATIENCE = 120_000;
/** Its packages are those of uploads, whose test has them. */
const ELSEWHERE = ['README.md', 'uploads.md'];

const SECRET = 'whsec_test';

/** A page's application, and what it calls. */
class Bench {
  files!: PageFiles;
  recipe!: RunningRecipe;
  world!: OutsideWorld;

  constructor(page: string, environment: () => NodeJS.ProcessEnv = () => ({})) {
    const opened: (() => Promise<void>)[] = [];

    beforeAll(async () => {
      this.world = await startOutsideWorld();
      opened.push(() => this.world.close());
      this.files = await writeFiles(`${FOLDER}/${page}`);
      opened.push(() => this.files.remove());
      const outside = { PROVIDER_URL: this.world.url, WEBHOOK_SECRET: SECRET };
      this.recipe = await startRecipe(this.files, { ...outside, ...environment() });
      opened.push(() => this.recipe.close());
    }, PATIENCE);

    afterAll(async () => {
      for (const close of opened.reverse()) await close();
    });
  }

  /** Sends a request; `server` is which of the process's servers gets it. */
  post(path: string, body: object, key: string, server = 0): Promise<HttpResponse> {
    return postJson(this.url(path, server), body, this.headers(key));
  }

  url(path: string, server = 0): string {
    return `${this.recipe.urls[server]}/${path}`;
  }

  headers(key: string): Record<string, string> {
    return { 'X-API-Key': 'alice', 'Idempotency-Key': key };
  }

  query<Row = Record<string, unknown>>(sql: string, parameters?: readonly unknown[]): Promise<Row[]> {
    return this.recipe.database.query<Row>(sql, parameters);
  }

  async count(table: string): Promise<number> {
    return (await this.query(`SELECT FROM ${table}`)).length;
  }

  /** A handler that writes to the table fails meanwhile. */
  async without<T>(table: string, work: () => Promise<T>, database = this.recipe.database): Promise<T> {
    await database.query(`ALTER TABLE ${table} RENAME TO away`);
    try {
      return await work();
    } finally {
      await database.query(`ALTER TABLE away RENAME TO ${table}`);
    }
  }
}

/** Nothing can be added to the table meanwhile, which is found out at COMMIT. */
async function refusingAtCommit<T>(
  database: TestDatabase,
  table: string,
  work: () => Promise<T>,
): Promise<T> {
  await database.query(
    'CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE check_violation; END $$',
  );
  await database.query(
    `CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON ${table} DEFERRABLE INITIALLY DEFERRED
     FOR EACH ROW EXECUTE FUNCTION refuse()`,
  );
  try {
    return await work();
  } finally {
    await database.query('DROP FUNCTION refuse CASCADE');
  }
}

function expectReplay(first: HttpResponse, second: HttpResponse): void {
  expect(first.headers['idempotency-replayed']).toBeUndefined();
  expect({ status: second.status, text: second.text }).toEqual({ status: first.status, text: first.text });
  expect(second.headers['idempotency-replayed']).toBe('true');
}

function codeOf(answer: HttpResponse): unknown {
  return (answer.json() as { code?: unknown }).code;
}

describe('the code of the recipes', () => {
  const pages: PageFiles[] = [];

  beforeAll(async () => {
    for (const page of await readdir(FOLDER))
      if (!ELSEWHERE.includes(page)) pages.push(await writeFiles(`${FOLDER}/${page}`));
  });

  afterAll(() => Promise.all(pages.map((page) => page.remove())));

  it(
    'compiles',
    () => {
      expect(pages).toHaveLength(6);
      for (const { folder, files } of pages) expect(files).toContain(`${folder}/src/app.module.ts`);
      expect(typeErrors(pages.flatMap(({ files }) => files))).toEqual([]);
    },
    PATIENCE,
  );
});

describe('recipe: an order paid out of a wallet', () => {
  const bench = new Bench('payments.md');

  const wallet = async (balance: number): Promise<void> => {
    await bench.query('TRUNCATE orders, wallets');
    await bench.query('INSERT INTO wallets (owner, balance) VALUES ($1, $2)', ['alice', balance]);
  };

  const balance = async (): Promise<unknown> =>
    (await bench.query('SELECT balance FROM wallets'))[0]?.['balance'];

  it('pays a duplicate once, whichever adapter it comes to', async () => {
    await wallet(1_000);
    const key = randomUUID();
    const first = await bench.post('orders', { amount: 300 }, key);
    expect(first.status).toBe(201);
    expectReplay(first, await bench.post('orders', { amount: 300 }, key, 1));
    expect([await balance(), await bench.count('orders')]).toEqual([700, 1]);
  });

  it('pays once for duplicates that come together', async () => {
    await wallet(1_000);
    const key = randomUUID();
    const answers = await Promise.all(
      [0, 1, 0, 1].map((server) => bench.post('orders', { amount: 300 }, key, server)),
    );
    expect(new Set(answers.map(({ status, text }) => `${status} ${text}`)).size).toBe(1);
    expect(answers[0]?.status).toBe(201);
    expect([await balance(), await bench.count('orders')]).toEqual([700, 1]);
  });

  it('refuses what is not there, and undoes the order', async () => {
    await wallet(100);
    const key = randomUUID();
    const first = await bench.post('orders', { amount: 300 }, key);
    expect(first.status).toBe(402);
    await bench.query('UPDATE wallets SET balance = 1000');
    expectReplay(first, await bench.post('orders', { amount: 300 }, key));
    expect([await balance(), await bench.count('orders')]).toEqual([1_000, 0]);
  });

  it('never overdraws the wallet', async () => {
    await wallet(500);
    const orders = Array.from({ length: 4 }, (_, n) =>
      bench.post('orders', { amount: 200 }, randomUUID(), n % 2),
    );
    const statuses = (await Promise.all(orders)).map(({ status }) => status).sort();
    expect(statuses).toEqual([201, 201, 402, 402]);
    expect([await balance(), await bench.count('orders')]).toEqual([100, 2]);
  });

  it('runs a corrected request under the same key', async () => {
    await wallet(1_000);
    const key = randomUUID();
    expect((await bench.post('orders', { amount: -300 }, key)).status).toBe(400);
    expect((await bench.post('orders', { amount: 300 }, key)).status).toBe(201);
    expect(await balance()).toBe(700);
  });

  describe('a charge at a provider', () => {
    const charges = (amount: number): unknown[] =>
      bench.world.made('charges').filter((made) => made['amount'] === amount);
    /** Tells the charges of the tests apart. */
    let amount = 1_000;
    const newAmount = (): number => (amount += 1);

    it('is made once', async () => {
      const [key, body] = [randomUUID(), { amount: newAmount() }];
      const first = await bench.post('charges', body, key);
      expect(first.status).toBe(201);
      expectReplay(first, await bench.post('charges', body, key, 1));
      expect(charges(body.amount)).toHaveLength(1);
    });

    it.each(['lose-answer', 500] as const)('is found, or made, after trouble: %s', async (trouble) => {
      const [key, body] = [randomUUID(), { amount: newAmount() }];
      bench.world.trouble('charges', trouble);
      expect((await bench.post('charges', body, key)).status).toBe(502);
      const calls = bench.world.calls('/charges');
      const retry = await bench.post('charges', body, key, 1);
      expect(retry.status).toBe(201);
      expect(retry.json()).toMatchObject({ id: expect.any(String), amount: body.amount });
      // What was found is not asked for again.
      expect(bench.world.calls('/charges') - calls).toBe(trouble === 'lose-answer' ? 0 : 1);
      expect(charges(body.amount)).toHaveLength(1);
      expect((await bench.post('charges', body, key)).text).toBe(retry.text);
    });

    it('is refused while nobody can be asked', async () => {
      const [key, body] = [randomUUID(), { amount: newAmount() }];
      bench.world.trouble('charges', 'lose-answer');
      await bench.post('charges', body, key);
      bench.world.trouble('charges', 500);
      const refused = await bench.post('charges', body, key);
      expect([refused.status, codeOf(refused)]).toEqual([409, 'IDEMPOTENCY_OUTCOME_UNRESOLVED']);
      expect((await bench.post('charges', body, key)).status).toBe(201);
      expect(charges(body.amount)).toHaveLength(1);
    });

    it('records that the card was declined', async () => {
      const [key, body] = [randomUUID(), { amount: newAmount() }];
      bench.world.trouble('charges', 402);
      const first = await bench.post('charges', body, key);
      expect(first.status).toBe(402);
      expectReplay(first, await bench.post('charges', body, key));
      expect(charges(body.amount)).toHaveLength(0);
    });

    it('frees the key where the provider was never reached', async () => {
      const [key, body] = [randomUUID(), { amount: newAmount() }];
      await bench.world.down();
      expect((await bench.post('charges', body, key)).status).toBe(502);
      await bench.world.up();
      expect(await bench.query('SELECT FROM idempotency_records WHERE key = $1', [key])).toEqual([]);
      expect((await bench.post('charges', body, key)).status).toBe(201);
      expect(charges(body.amount)).toHaveLength(1);
    });

    it(
      'is found by the next process when one was killed during the call',
      async () => {
        const [key, body] = [randomUUID(), { amount: newAmount() }];
        bench.world.trouble('charges', 'hold-answer');
        startRequest(bench.url('charges'), {
          method: 'POST',
          headers: { ...bench.headers(key), 'Content-Type': 'application/json' },
          body: JSON.stringify(body),
        });
        await eventually(() => charges(body.amount).length === 1);
        await bench.recipe.killAndRestart();
        // Nobody extends the lease any more: this is what time does.
        await bench.query(
          `UPDATE idempotency_records SET locked_until = now() - interval '1s' WHERE key = $1`,
          [key],
        );
        expect((await bench.post('charges', body, key)).status).toBe(201);
        expect(charges(body.amount)).toHaveLength(1);
      },
      PATIENCE,
    );
  });
});

describe('recipe: webhooks', () => {
  const bench = new Bench('webhooks.md');

  const deliver = (
    event: object,
    { secret = SECRET, time = Math.floor(Date.now() / 1_000) } = {},
  ): Promise<HttpResponse> => {
    // As no serializer writes it: a signature over parsed JSON would not hold.
    const body = Buffer.from(JSON.stringify(event, undefined, 3));
    const digest = createHmac('sha256', secret).update(`${time}.`).update(body).digest('hex');
    return postJson(bench.url('webhooks/payments'), body, { 'X-Signature': `t=${time},v1=${digest}` });
  };

  const paid = (): { id: string; type: string; data: { payment: string; amount: number } } => ({
    id: randomUUID(),
    type: 'payment.succeeded',
    data: { payment: randomUUID(), amount: 100 },
  });

  const payments = (reference: string): Promise<unknown[]> =>
    bench.query('SELECT amount FROM payments WHERE reference = $1', [reference]);

  it('a redelivery gets the acknowledgement again', async () => {
    const event = paid();
    const first = await deliver({ ...event, attempt: 1 });
    expect([first.status, first.json()]).toEqual([200, { received: true }]);
    expectReplay(
      first,
      await deliver({ ...event, attempt: 2 }, { time: Math.floor(Date.now() / 1_000) - 60 }),
    );
    expect(await payments(event.data.payment)).toEqual([{ amount: 100 }]);
  });

  it('deliveries at once have one effect', async () => {
    const event = paid();
    const answers = await Promise.all([1, 2, 3].map((attempt) => deliver({ ...event, attempt })));
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200]);
    expect(await payments(event.data.payment)).toHaveLength(1);
  });

  it.each([
    ['with another secret', { secret: 'another' }],
    ['long ago', { time: 1_767_225_600 }],
  ])('what was signed %s is refused, and leaves the event free', async (_how, signed) => {
    const event = paid();
    expect((await deliver(event, signed)).status).toBe(401);
    expect(await payments(event.data.payment)).toEqual([]);
    expect((await deliver(event)).status).toBe(200);
    expect(await payments(event.data.payment)).toHaveLength(1);
  });

  it('another content under the same id is refused', async () => {
    const event = paid();
    await deliver(event);
    const other = await deliver({ ...event, data: { ...event.data, amount: 200 } });
    expect([other.status, codeOf(other)]).toEqual([422, 'IDEMPOTENCY_KEY_REUSED']);
    expect(codeOf(await deliver({ type: 'payment.succeeded' }))).toBe('IDEMPOTENCY_KEY_REQUIRED');
  });

  it('a handler that failed runs again on the redelivery', async () => {
    const event = paid();
    await bench.without('payments', async () => expect((await deliver(event)).status).toBe(500));
    const redelivered = await deliver(event);
    expect(redelivered.status).toBe(200);
    expect(redelivered.headers['idempotency-replayed']).toBeUndefined();
    expect(await payments(event.data.payment)).toHaveLength(1);
  });

  it('acknowledges what is of no interest', async () => {
    expect((await deliver({ id: randomUUID(), type: 'payout.created' })).status).toBe(200);
  });
});

describe('recipe: queues', () => {
  const bench = new Bench('queues.md');

  const invoices = (order: string): Promise<unknown[]> =>
    bench.query('SELECT amount FROM invoices WHERE "order" = $1', [order]);

  /** Resolves with the job's id when the order's job is acknowledged. */
  const acknowledged = (order: string): Promise<string> =>
    eventually(
      async () => {
        const jobs = await bench.query<{ id: string; state: string }>(
          `SELECT id, state FROM pgboss.job WHERE name = 'invoices' AND data->>'order' = $1`,
          [order],
        );
        expect(jobs).toMatchObject([{ state: 'completed' }]);
        return jobs[0]!.id;
      },
      { timeoutMs: PATIENCE / 2 },
    );

  /** As when the acknowledgement had been lost. */
  const redeliver = (job: string): Promise<unknown> =>
    bench.query(
      `UPDATE pgboss.job SET state = 'retry', start_after = now(), completed_on = NULL WHERE id = $1`,
      [job],
    );

  const placeOrder = async (key = randomUUID()): Promise<{ answer: HttpResponse; id: string }> => {
    const answer = await bench.post('orders', { amount: 500 }, key);
    expect(answer.status).toBe(201);
    return { answer, id: (answer.json() as { id: string }).id };
  };

  it(
    'a request that comes twice makes one job and one invoice',
    async () => {
      const key = randomUUID();
      const { answer, id } = await placeOrder(key);
      expectReplay(answer, await bench.post('orders', { amount: 500 }, key, 1));
      await acknowledged(id);
      expect(await invoices(id)).toEqual([{ amount: 500 }]);
    },
    PATIENCE,
  );

  it(
    'a job that is delivered twice makes one invoice',
    async () => {
      const { id } = await placeOrder();
      const job = await acknowledged(id);
      await redeliver(job);
      await acknowledged(id);
      expect(await invoices(id)).toHaveLength(1);
    },
    PATIENCE,
  );

  it(
    'work that fails is delivered again',
    async () => {
      const order = await bench.without('invoices', async () => {
        const { id } = await placeOrder();
        await eventually(
          async () => {
            const [job] = await bench.query(
              `SELECT state FROM pgboss.job WHERE name = 'invoices' AND data->>'order' = $1`,
              [id],
            );
            return job?.['state'] === 'retry';
          },
          { timeoutMs: PATIENCE / 2 },
        );
        return id;
      });
      await acknowledged(order);
      expect(await invoices(order)).toHaveLength(1);
    },
    PATIENCE,
  );

  it(
    'a message that nothing can be done about goes to the dead letters',
    async () => {
      const { id } = await placeOrder();
      const job = await acknowledged(id);
      await bench.query(`UPDATE pgboss.job SET data = jsonb_set(data, '{amount}', '1') WHERE id = $1`, [job]);
      await redeliver(job);
      await acknowledged(id);
      const letters = await bench.query(`SELECT data FROM pgboss.job WHERE name = 'invoices-dead'`);
      expect(letters).toMatchObject([{ data: { id: job, code: 'IDEMPOTENCY_KEY_REUSED' } }]);
      expect(await invoices(id)).toEqual([{ amount: 500 }]);
    },
    PATIENCE,
  );

  it('what is rolled back at COMMIT was never enqueued', async () => {
    const state = async (): Promise<unknown[]> => [
      await bench.count('orders'),
      await bench.count('pgboss.job'),
    ];
    const before = await state();
    const refused = await refusingAtCommit(bench.recipe.database, 'orders', () =>
      bench.post('orders', { amount: 500 }, randomUUID()),
    );
    expect([refused.status, codeOf(refused)]).toEqual([500, 'IDEMPOTENCY_COMMIT_REFUSED']);
    expect(await state()).toEqual(before);
  });
});

describe('recipe: outside services', () => {
  const bench = new Bench('outside-services.md');
  let item: string;

  /** A request for an item of its own, by which its calls are known. */
  const request = async (available = 1): Promise<{ send: (server?: number) => Promise<HttpResponse> }> => {
    item = randomUUID();
    price += 1;
    await bench.query('INSERT INTO stock (item, available) VALUES ($1, $2)', [item, available]);
    const [key, body] = [randomUUID(), { item, price }];
    return { send: (server) => bench.post('shipments', body, key, server) };
  };
  let price = 100;

  /** What was done for the item. */
  const done = async (): Promise<Record<string, unknown>> => ({
    available: (await bench.query('SELECT available FROM stock WHERE item = $1', [item]))[0]?.['available'],
    charges: bench.world.made('charges').filter((made) => made['amount'] === price).length,
    labels: bench.world.made('labels').filter((made) => made['item'] === item).length,
    pickups: bench.world.made('pickups').filter((made) => made['item'] === item).length,
    shipments: (await bench.query('SELECT FROM shipments WHERE item = $1', [item])).length,
  });
  const ALL = { available: 0, charges: 1, labels: 1, pickups: 1, shipments: 1 };

  it('each step is done once', async () => {
    const { send } = await request();
    const first = await send();
    expect(first.status).toBe(201);
    expectReplay(first, await send(1));
    expect(await done()).toEqual(ALL);
  });

  it.each([
    ['charges', 'lose-answer', 500],
    ['charges', 'lose-request', 500],
    ['labels', 'lose-answer', 500],
    ['labels', 'lose-request', 500],
    ['labels', 503, 503],
  ] as const)(
    'work resumes after its last step when there was trouble with %s: %s',
    async (kind, trouble, status) => {
      const { send } = await request();
      bench.world.trouble(kind, trouble);
      expect((await send()).status).toBe(status);
      const charges = bench.world.calls('/charges');
      expect((await send(1)).status).toBe(201);
      expect(bench.world.calls('/charges') - charges).toBe(kind === 'charges' ? 1 : 0);
      expect(await done()).toEqual(ALL);
    },
  );

  it('a step that nobody can tell of waits until it is settled', async () => {
    const { send } = await request();
    bench.world.trouble('pickups', 'lose-answer');
    expect((await send()).status).toBe(500);
    const refused = await send();
    expect([refused.status, codeOf(refused)]).toEqual([409, 'IDEMPOTENCY_OUTCOME_UNRESOLVED']);
    expect(await done()).toEqual({ ...ALL, shipments: 0 });
    await settlePickup(bench.recipe.database);
    expect((await send()).status).toBe(201);
    expect(await done()).toEqual(ALL);
  });

  it('what was reserved is given back when the card is declined', async () => {
    const { send } = await request();
    bench.world.trouble('charges', 402);
    const first = await send();
    expect(first.status).toBe(402);
    expectReplay(first, await send());
    expect(await done()).toEqual({ available: 1, charges: 0, labels: 0, pickups: 0, shipments: 0 });
  });

  it('nothing is done where nothing is left', async () => {
    const { send } = await request(0);
    const first = await send();
    expect(first.status).toBe(409);
    expectReplay(first, await send());
    expect(await done()).toEqual({ available: 0, charges: 0, labels: 0, pickups: 0, shipments: 0 });
  });
});

describe('recipe: several databases', () => {
  let books: TestDatabase;
  beforeAll(async () => {
    books = await createEmptyDatabase();
  });
  const bench = new Bench('several-databases.md', () => ({ BOOKS_DATABASE_URL: books.url }));
  afterAll(() => books.drop());

  const sales = (amount: number): Promise<unknown[]> =>
    books.query('SELECT id FROM sales WHERE amount = $1', [amount]);
  const carried = async (): Promise<void> => {
    await eventually(async () => (await bench.count('outbox')) === 0, { timeoutMs: PATIENCE / 4 });
  };

  it(
    'an order that comes twice is one order and one sale',
    async () => {
      const key = randomUUID();
      const first = await bench.post('orders', { amount: 11 }, key);
      expect(first.status).toBe(201);
      expectReplay(first, await bench.post('orders', { amount: 11 }, key, 1));
      await carried();
      expect(await bench.query('SELECT FROM orders WHERE amount = 11')).toHaveLength(1);
      expect(await sales(11)).toHaveLength(1);
    },
    PATIENCE,
  );

  it('an order that is rolled back is no sale', async () => {
    const refused = await refusingAtCommit(bench.recipe.database, 'orders', () =>
      bench.post('orders', { amount: 12 }, randomUUID()),
    );
    expect(refused.status).toBe(500);
    expect(await bench.query('SELECT FROM outbox WHERE amount = 12')).toEqual([]);
    expect(await sales(12)).toEqual([]);
  });

  it(
    'a sale waits for the books, and is carried once however often',
    async () => {
      await bench.without(
        'sales',
        async () => {
          expect((await bench.post('orders', { amount: 13 }, randomUUID())).status).toBe(201);
          expect(await bench.query('SELECT FROM outbox WHERE amount = 13')).toHaveLength(1);
        },
        books,
      );
      await carried();
      const [sale] = (await sales(13)) as { id: string }[];
      // As when the relay had been killed between the two commits.
      await bench.query('INSERT INTO outbox (id, amount) VALUES ($1, 13)', [sale?.id]);
      await carried();
      expect(await sales(13)).toEqual([sale]);
    },
    PATIENCE,
  );

  it('a transfer that stopped between the databases is finished by its retry', async () => {
    const key = randomUUID();
    await bench.without('transfers', async () =>
      expect((await bench.post('transfers', { amount: 14 }, key)).status).toBe(500),
    );
    expect(await sales(14)).toHaveLength(1);
    const retry = await bench.post('transfers', { amount: 14 }, key);
    expect(retry.status).toBe(201);
    expect((await bench.post('transfers', { amount: 14 }, key, 1)).text).toBe(retry.text);
    expect(await sales(14)).toHaveLength(1);
    expect(await bench.query('SELECT FROM transfers WHERE amount = 14')).toHaveLength(1);
  });
});

describe('recipe: e-mail after commit', () => {
  const bench = new Bench('email-after-commit.md');

  const confirmations = (to: string): unknown[] =>
    bench.world.made('mails').filter((mail) => mail['to'] === to);
  const told = (): number => confirmations('team@example.com').length;
  const sent = async (): Promise<void> => {
    await eventually(async () => (await bench.count('mails')) === 0, { timeoutMs: PATIENCE / 4 });
  };
  const attempts = (email: string): Promise<unknown[]> =>
    bench.query('SELECT FROM attempts WHERE email = $1', [email]);

  it(
    'each mail goes out once, after the commit',
    async () => {
      const [key, email] = [randomUUID(), 'once@example.com'];
      const before = told();
      const first = await bench.post('sign-ups', { email }, key);
      expect(first.status).toBe(201);
      expectReplay(first, await bench.post('sign-ups', { email }, key, 1));
      await sent();
      await eventually(() => told() > before);
      expect(confirmations(email)).toHaveLength(1);
      expect(told()).toBe(before + 1);
      expect(await attempts(email)).toHaveLength(1);
    },
    PATIENCE,
  );

  it(
    'none goes out after a rollback, and the attempt stays',
    async () => {
      const email = 'twice@example.com';
      const toldOfOthers = told();
      await bench.post('sign-ups', { email }, randomUUID());
      await sent();
      await eventually(() => told() > toldOfOthers);
      const before = [told(), bench.world.calls('/mails')];
      const conflict = await bench.post('sign-ups', { email }, randomUUID());
      expect(conflict.status).toBe(409);
      await bench.without('users', async () =>
        expect((await bench.post('sign-ups', { email }, randomUUID())).status).toBe(500),
      );
      expect(await bench.count('mails')).toBe(0);
      // What comes after it is sent after it, so that it would have been sent by now.
      await bench.post('sign-ups', { email: 'later@example.com' }, randomUUID());
      await sent();
      await eventually(() => told() > before[0]!);
      expect(bench.world.calls('/mails') - before[1]!).toBe(2);
      expect(await attempts(email)).toHaveLength(3);
    },
    PATIENCE,
  );

  it(
    'a mail whose answer is lost is sent again under its key',
    async () => {
      const email = 'lost@example.com';
      const calls = bench.world.calls('/mails');
      bench.world.trouble('mails', 'lose-answer');
      // No sign-up, whose other mail might be the one that has the trouble.
      await bench.query(`INSERT INTO mails ("to", subject) VALUES ($1, 'Confirm your address')`, [email]);
      await sent();
      expect(bench.world.calls('/mails') - calls).toBe(2);
      expect(confirmations(email)).toHaveLength(1);
    },
    PATIENCE,
  );
});

/** What an operator does who has found out that a van was ordered. The process of the page has no console. */
async function settlePickup(database: TestDatabase): Promise<void> {
  const office = await startApp({ adapter: 'express', databaseUrl: database.url });
  try {
    const idempotency = office.app.get(IdempotencyService);
    const { records } = await idempotency.list({ state: 'unresolved', client: 'shipments' });
    expect(records).toMatchObject([{ endpoint: 'ship/pickup' }]);
    expect(await idempotency.settle(records[0]!, { body: { id: 'pickup' } })).toBe('done');
  } finally {
    await office.close();
  }
}
