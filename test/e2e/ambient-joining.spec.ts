import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import type { ClientBase } from 'pg';
import QueryStream from 'pg-query-stream';
import { In, JoinColumn, ManyToOne, OneToMany, type Relation, Repository } from 'typeorm';
import { Column, Entity, PrimaryGeneratedColumn } from 'typeorm';
import { ADAPTERS, Application, type Handler, type Scene } from '../helpers/application.js';
import { Order, Wallet } from '../helpers/shop.js';

@Entity('authors')
class Author {
  @PrimaryGeneratedColumn()
  id!: number;

  @Column('text')
  name!: string;

  @OneToMany(() => Book, (book) => book.author, { cascade: true, lazy: true })
  books!: Promise<Relation<Book>[]>;
}

@Entity('books')
class Book {
  @PrimaryGeneratedColumn()
  id!: number;

  @Column('text')
  title!: string;

  @ManyToOne(() => Author, (author) => author.books, { lazy: true })
  @JoinColumn({ name: 'author_id' })
  author!: Promise<Relation<Author>>;
}

class OrderRepository extends Repository<Order> {
  place(item: string): Promise<Order> {
    return this.save({ item, price: 1 });
  }
}

/** Every way in which a handler may write one order called `x`. */
const WRITES: Record<string, Handler> = {
  'an injected repository': ({ orders }) => orders.save({ item: 'x', price: 1 }),
  'Repository.insert': ({ orders }) => orders.insert({ item: 'x', price: 1 }),
  'Repository.upsert': ({ orders }) => orders.upsert({ id: 77, item: 'x', price: 1 }, ['id']),
  'a custom repository': ({ dataSource, orders }) =>
    new OrderRepository(Order, dataSource.manager, orders.queryRunner).place('x'),
  'an extended repository': ({ dataSource }) =>
    dataSource
      .getRepository(Order)
      .extend({
        place(item: string) {
          return this.save({ item, price: 1 });
        },
      })
      .place('x'),
  'EntityManager.withRepository': ({ manager, dataSource }) =>
    manager.withRepository(new OrderRepository(Order, dataSource.manager)).place('x'),
  'dataSource.manager': ({ dataSource }) => dataSource.manager.save(Order, { item: 'x', price: 1 }),
  'an injected EntityManager': ({ manager }) => manager.insert(Order, { item: 'x', price: 1 }),
  'EntityManager.query': ({ manager }) => manager.query(`INSERT INTO orders (item, price) VALUES ('x', 1)`),
  'dataSource.query': ({ dataSource }) =>
    dataSource.query('INSERT INTO orders (item, price) VALUES ($1, 1)', ['x']),
  'dataSource.createQueryBuilder': ({ dataSource }) =>
    dataSource.createQueryBuilder().insert().into(Order).values({ item: 'x', price: 1 }).execute(),
  'an update through a query builder': async ({ orders }) => {
    await orders.insert({ item: 'y', price: 1 });
    await orders.createQueryBuilder().update().set({ item: 'x' }).where({ item: 'y' }).execute();
  },
  'a delete through a query builder': async ({ orders }) => {
    await orders.insert([
      { item: 'x', price: 1 },
      { item: 'y', price: 1 },
    ]);
    await orders.createQueryBuilder().delete().where({ item: 'y' }).execute();
  },
  'dataSource.transaction': ({ dataSource }) =>
    dataSource.transaction((manager) => manager.save(Order, { item: 'x', price: 1 })),
  'an injected repository inside dataSource.transaction': ({ dataSource, orders }) =>
    dataSource.transaction(() => orders.save({ item: 'x', price: 1 })),
  'a query runner without a transaction': async ({ dataSource }) => {
    const runner = dataSource.createQueryRunner();
    await runner.manager.save(Order, { item: 'x', price: 1 });
    await runner.release();
  },
  'the raw client of a query runner': async ({ dataSource }) => {
    const runner = dataSource.createQueryRunner();
    const client = (await runner.connect()) as { query(sql: string): Promise<unknown> };
    await client.query(`INSERT INTO orders (item, price) VALUES ('x', 1)`);
    await runner.release();
  },
};

describe.each(ADAPTERS)('what joins the transaction of a handler (%s)', (adapter) => {
  let app: Application;

  beforeAll(async () => {
    // One connection is enough: whatever asked for a second one would wait until it fails.
    app = await Application.start({
      adapter,
      poolSize: 1,
      typeorm: { entities: [Wallet, Order, Author, Book] },
      idempotency: { acquireTimeout: '2s', maxDuration: '5s' },
    });
    await app.database.query('CREATE TABLE authors (id serial PRIMARY KEY, name text NOT NULL)');
    await app.database.query(
      'CREATE TABLE books (id serial PRIMARY KEY, title text NOT NULL, author_id int REFERENCES authors)',
    );
  });

  afterEach(async () => {
    await app.idle();
    await app.clear();
  });

  afterAll(() => app.close());

  it.each(Object.entries(WRITES))('%s writes in it', async (_, write) => {
    const writeAnd = async (tools: Scene, outcome: () => unknown): Promise<unknown> => {
      await write(tools);
      expect(await tools.orders.countBy({ item: 'x' })).toBe(1);
      expect(await app.items()).toEqual([]);
      return outcome();
    };
    const fail = (): never => {
      throw new Error('the handler fails');
    };
    const failed = await app.run((tools) => writeAnd(tools, fail), { key: 'one' });
    expect(failed.status).toBe(500);
    expect(await app.state()).toEqual({ balance: 1000, orders: 0, records: 0 });
    const succeeded = await app.run((tools) => writeAnd(tools, () => 'done'), { key: 'one' });
    expect(succeeded.text).toBe('done');
    expect(await app.items()).toEqual(['x']);
  });

  it('reads see what the handler wrote, whichever way they go', async () => {
    const answer = await app.run(async ({ dataSource, manager, orders }) => {
      await orders.insert({ item: 'seen', price: 3 });
      const found = [
        await orders.findOneByOrFail({ item: 'seen' }),
        ...(await orders.find({ where: { item: In(['seen']) } })),
        ...(await manager.find(Order)),
        ...(await dataSource.createQueryBuilder(Order, 'o').where('o.price = 3').getMany()),
        ...(await orders.createQueryBuilder('o').orderBy('o.id').getMany()),
        ...(await dataSource.query<Order[]>('SELECT * FROM orders')),
      ];
      return found.map(({ item }) => item);
    });
    expect(answer.json()).toEqual(Array(6).fill('seen'));
  });

  it('streams rows, and statements sent meanwhile wait for the end of the stream', async () => {
    const answer = await app.run(async ({ orders }) => {
      await orders.insert(Array.from({ length: 250 }, (_, price) => ({ item: 'row', price })));
      const stream = await orders.createQueryBuilder('o').orderBy('o.price').stream();
      const counted = orders.count();
      const prices: number[] = [];
      for await (const row of stream) prices.push((row as unknown as { o_price: number }).o_price);
      return { prices, counted: await counted };
    });
    expect(answer.json()).toEqual({ prices: Array.from({ length: 250 }, (_, price) => price), counted: 250 });
  });

  it('sends a stream in its turn when other statements are under way', async () => {
    const answer = await app.run(async ({ dataSource }) => {
      const client = (await dataSource.createQueryRunner().connect()) as ClientBase;
      const insert = (): Promise<unknown> =>
        client.query(`INSERT INTO orders (item, price) SELECT 'x', 1 FROM pg_sleep(0.01)`);
      const before = [insert(), insert(), insert()];
      const stream = client.query(new QueryStream('SELECT item FROM orders'));
      const after = insert();
      const rows: unknown[] = [];
      for await (const row of stream) rows.push(row);
      await Promise.all([...before, after]);
      return rows.length;
    });
    expect(answer.text).toBe('3');
    expect(await app.state()).toMatchObject({ orders: 4 });
  });

  it('a stream that is given up half-way makes way for what follows', async () => {
    const answer = await app.run(async ({ orders }) => {
      await orders.insert(Array.from({ length: 1000 }, (_, price) => ({ item: 'row', price })));
      const stream = await orders.createQueryBuilder('o').stream();
      await stream[Symbol.asyncIterator]().next();
      stream.destroy();
      return orders.count();
    });
    expect(answer.text).toBe('1000');
  });

  it('relations load in it: cascades, joins and lazy ones', async () => {
    const answer = await app.run(async ({ dataSource, manager }) => {
      const authors = dataSource.getRepository(Author);
      const author = authors.create({ name: 'Ada' });
      author.books = Promise.resolve([manager.create(Book, { title: 'Notes' })]);
      await authors.save(author);
      const lazy = await manager.findOneByOrFail(Author, { name: 'Ada' });
      const eager = await manager.findOneOrFail(Author, {
        where: { name: 'Ada' },
        relations: { books: true },
      });
      const [book] = await manager.find(Book);
      const nested = await dataSource.transaction((inner) => inner.findOneByOrFail(Author, { name: 'Ada' }));
      return {
        lazy: (await lazy.books).map(({ title }) => title),
        eager: (await eager.books).map(({ title }) => title),
        back: (await book!.author).name,
        afterItsTransaction: (await nested.books).length,
      };
    });
    expect(answer.json()).toEqual({ lazy: ['Notes'], eager: ['Notes'], back: 'Ada', afterItsTransaction: 1 });
  });

  it('an entity that outlives its handler loads lazy relations outside of it', async () => {
    const kept: Author[] = [];
    await app.run(async ({ dataSource, manager }) => {
      await manager.save(Author, { name: 'Kept' });
      kept.push(await manager.findOneByOrFail(Author, { name: 'Kept' }));
      kept.push(await dataSource.transaction((inner) => inner.findOneByOrFail(Author, { name: 'Kept' })));
    });
    for (const author of kept) expect(await author.books).toEqual([]);
  });

  it('a repository first used in a handler works in later handlers, and outside of them', async () => {
    const kept: { repository?: Repository<Author> } = {};
    await app.run(({ dataSource }) => {
      kept.repository = dataSource.getRepository(Author);
      return kept.repository.insert({ name: 'first' });
    });
    await kept.repository!.insert({ name: 'outside' });
    const failed = await app.run(async () => {
      await kept.repository!.insert({ name: 'rolled back' });
      throw new Error('the second handler fails');
    });
    expect(failed.status).toBe(500);
    const names = await app.database.query(
      `SELECT name FROM authors WHERE name IN ('first', 'outside', 'rolled back') ORDER BY name`,
    );
    expect(names).toEqual([{ name: 'first' }, { name: 'outside' }]);
  });

  it('a route that is not protected writes outside of it', async () => {
    const failed = await app.run(
      async ({ orders }) => {
        await orders.insert({ item: 'committed at once', price: 1 });
        throw new Error('the handler fails');
      },
      { route: 'plain' },
    );
    expect(failed.status).toBe(500);
    expect(await app.state()).toEqual({ balance: 1000, orders: 1, records: 0 });
  });
});
