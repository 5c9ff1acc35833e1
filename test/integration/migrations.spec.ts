import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it, jest } from '@jest/globals';
import {
  idempotencyDdl,
  idempotencyMigrations,
  type MigrationTarget,
} from 'nestjs-pg-idempotency/migrations';
import { DataSource, type DataSourceOptions } from 'typeorm';
import { createEmptyDatabase, createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { createShop, Order, Wallet } from '../helpers/shop.js';

const HERE = dirname(fileURLToPath(import.meta.url));
const REPOSITORY = join(HERE, '..', '..');
const GOLDEN = readFileSync(join(HERE, 'schema.sql'), 'utf8');

/** A table as SQL made from the catalogs, which reads the same on every release of PostgreSQL from 14 on. */
const DUMP = `
WITH target AS (SELECT $1::regclass AS oid, $1::regclass::text AS name)
SELECT line FROM target, LATERAL (
  SELECT 1 AS part, 0 AS position, format('CREATE TABLE %s ();', name) AS line
  UNION ALL
  SELECT 2, attnum::int,
         format('ALTER TABLE %s ADD COLUMN %I %s%s%s%s;', name, attname, format_type(atttypid, atttypmod),
                ' COLLATE ' || (SELECT quote_ident(collname) FROM pg_collation c
                                 WHERE c.oid = attcollation AND collname <> 'default'),
                ' DEFAULT ' || pg_get_expr(adbin, adrelid), CASE WHEN attnotnull THEN ' NOT NULL' END)
    FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
   WHERE attrelid = target.oid AND attnum > 0 AND NOT attisdropped
  UNION ALL
  -- From 18 on NOT NULL is a constraint too; it is told with the column.
  SELECT 3, row_number() OVER (ORDER BY conname)::int,
         format('ALTER TABLE %s ADD CONSTRAINT %I %s;', name, conname, pg_get_constraintdef(pg_constraint.oid))
    FROM pg_constraint WHERE conrelid = target.oid AND contype <> 'n'
  UNION ALL
  SELECT 4, row_number() OVER (ORDER BY indexrelid::regclass::text)::int, pg_get_indexdef(indexrelid) || ';'
    FROM pg_index WHERE indrelid = target.oid
     AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
  UNION ALL
  SELECT 5, 0, format('COMMENT ON TABLE %s IS %L;', name, obj_description(target.oid, 'pg_class'))
) lines ORDER BY part, position`;

describe('migrations', () => {
  const databases: TestDatabase[] = [];
  const dataSources: DataSource[] = [];

  afterEach(async () => {
    jest.restoreAllMocks();
    await Promise.all(dataSources.splice(0).map((each) => each.destroy()));
    await Promise.all(databases.splice(0).map((each) => each.drop()));
  });

  async function emptyDatabase(): Promise<TestDatabase> {
    const database = await createEmptyDatabase();
    databases.push(database);
    return database;
  }

  async function connect({ url }: TestDatabase, options: Partial<DataSourceOptions>): Promise<DataSource> {
    const dataSource = new DataSource({ type: 'postgres', url, ...options } as DataSourceOptions);
    dataSources.push(await dataSource.initialize());
    return dataSource;
  }

  const dump = async (database: TestDatabase, table: string): Promise<string> =>
    (await database.query<{ line: string }>(DUMP, [table])).map(({ line }) => `${line}\n`).join('');

  const tables = async (database: TestDatabase): Promise<string[]> =>
    (
      await database.query<{ name: string }>(
        `SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables
          WHERE schemaname NOT IN ('pg_catalog', 'information_schema') AND tablename <> 'migrations'`,
      )
    ).map(({ name }) => name);

  it('create the schema that is written down', async () => {
    const database = await emptyDatabase();
    await (await connect(database, { migrations: idempotencyMigrations() })).runMigrations();
    expect(await dump(database, 'idempotency_records')).toBe(GOLDEN);
  });

  it('are written down as SQL that creates the same', async () => {
    const database = await emptyDatabase();
    await database.query(GOLDEN);
    expect(await dump(database, 'idempotency_records')).toBe(GOLDEN);
  });

  it('are the same as the DDL for those who migrate with something else', async () => {
    const database = await createTestDatabase();
    databases.push(database);
    expect(await dump(database, 'idempotency_records')).toBe(GOLDEN);
  });

  it.each<MigrationTarget>([
    {},
    { table: 'Requests "done" once' },
    { schema: 'My "Schema"', table: "it's; DROP TABLE x --" },
    { schema: 'My "Schema"' },
    { table: 'T'.repeat(51), schema: 'S'.repeat(63) },
    { table: 'ü'.repeat(25) },
  ])('run up, down and up again as %j', async (target) => {
    const database = await emptyDatabase();
    const { schema = 'public', table = 'idempotency_records' } = target;
    if (target.schema !== undefined) await database.query(`CREATE SCHEMA ${quote(target.schema)}`);
    const name = `${quote(schema)}.${quote(table)}`;
    const migrations = idempotencyMigrations(target);
    const dataSource = await connect(database, { migrations });
    for (const round of ['first', 'second']) {
      expect(await dataSource.runMigrations()).toHaveLength(migrations.length);
      expect({ round, tables: await tables(database) }).toEqual({ round, tables: [expect.any(String)] });
      const shape = await dump(database, name);
      expect(shape.match(/ADD COLUMN .*$/gm)).toEqual(GOLDEN.match(/ADD COLUMN .*$/gm));
      expect(await dataSource.showMigrations()).toBe(false);
      for (let undone = 0; undone < migrations.length; undone++) await dataSource.undoLastMigration();
      expect({ round, tables: await tables(database) }).toEqual({ round, tables: [] });
    }
  });

  it('run beside the application’s own, in the order of time', async () => {
    const database = await emptyDatabase();
    class CreateNotes1700000000000 {
      up = (runner: { query(sql: string): Promise<unknown> }): Promise<unknown> =>
        runner.query('CREATE TABLE notes (id int)');
      down = (runner: { query(sql: string): Promise<unknown> }): Promise<unknown> =>
        runner.query('DROP TABLE notes');
    }
    const migrations = [...idempotencyMigrations(), CreateNotes1700000000000];
    const run = await (await connect(database, { migrations })).runMigrations();
    expect(run.map(({ name }) => name)).toEqual([
      'CreateNotes1700000000000',
      'CreateIdempotencyRecords1767225600000',
    ]);
  });

  it('undo everything when the application’s next migration fails', async () => {
    // TypeORM prints the failure.
    jest.spyOn(console, 'log').mockImplementation(() => undefined);
    const database = await emptyDatabase();
    class Fail1800000000000 {
      up = (runner: { query(sql: string): Promise<unknown> }): Promise<unknown> =>
        runner.query('SELECT 1 / 0');
      down = async (): Promise<void> => undefined;
    }
    const dataSource = await connect(database, {
      migrations: [...idempotencyMigrations(), Fail1800000000000],
    });
    await expect(dataSource.runMigrations({ transaction: 'all' })).rejects.toThrow('division by zero');
    expect(await tables(database)).toEqual([]);
  });

  it.each([{}, { schema: 'public' }])('leave nothing for migration:generate to do (%j)', async (options) => {
    const database = await createTestDatabase();
    databases.push(database);
    await createShop(database);
    const dataSource = await connect(database, { entities: [Wallet, Order], ...options });
    // What the command writes into a migration, and what synchronize would run.
    const { upQueries, downQueries } = await dataSource.driver.createSchemaBuilder().log();
    const statements = [...upQueries, ...downQueries].map(({ query }) => query);
    expect(statements.filter((query) => query.includes('idempotency'))).toEqual([]);
  });

  it('leave nothing for migration:generate to do where the application’s tables are in step', async () => {
    const database = await createTestDatabase();
    databases.push(database);
    const dataSource = await connect(database, { entities: [Wallet, Order], synchronize: true });
    const { upQueries, downQueries } = await dataSource.driver.createSchemaBuilder().log();
    expect([...upQueries, ...downQueries]).toEqual([]);
    expect(await dump(database, 'idempotency_records')).toBe(GOLDEN);
  });

  it.each<[MigrationTarget, RegExp]>([
    [{ table: '' }, /table’s name must have 1 to 51 bytes/],
    [{ table: 't'.repeat(52) }, /table’s name must have 1 to 51 bytes.*tttt/],
    [{ table: 'ü'.repeat(26) }, /table’s name must have 1 to 51 bytes/],
    [{ table: 'a\0b' }, /table’s name must not contain a NUL/],
    [{ schema: '' }, /schema’s name is empty: leave it out/],
    [{ schema: 's'.repeat(64) }, /schema’s name must have 1 to 63 bytes/],
    [{ schema: 'a\0b' }, /schema’s name must not contain a NUL/],
  ])('refuse %j', (target, reason) => {
    for (const make of [idempotencyDdl, idempotencyMigrations]) {
      expect(() => make(target)).toThrow(RangeError);
      expect(() => make(target)).toThrow(reason);
    }
  });
});

describe('the command', () => {
  const databases: TestDatabase[] = [];

  afterEach(() => Promise.all(databases.splice(0).map((each) => each.drop())));

  function cli(...args: string[]): { status: number | null; stdout: string; stderr: string } {
    const hooks = join(REPOSITORY, 'test', 'jest', 'register-typescript.mjs');
    const command = ['--import', hooks, join(REPOSITORY, 'migrations', 'cli.ts'), ...args];
    return spawnSync(process.execPath, command, {
      cwd: REPOSITORY,
      encoding: 'utf8',
      env: { ...process.env, NODE_OPTIONS: '' },
    });
  }

  it('prints SQL that creates the table, and with --down SQL that drops it', async () => {
    const database = await createEmptyDatabase();
    databases.push(database);
    const names = ['--schema', 'My "Schema"', '--table', 'Records'];
    await database.query('CREATE SCHEMA "My ""Schema"""');
    const [up, down] = [cli('ddl', ...names), cli('ddl', ...names, '--down')];
    expect([up.status, down.status, up.stderr, down.stderr]).toEqual([0, 0, '', '']);
    expect(up.stdout).toBe(idempotencyDdl({ schema: 'My "Schema"', table: 'Records' }).up);
    await database.query(up.stdout);
    await database.query(`SELECT FROM "My ""Schema"""."Records"`);
    await database.query(down.stdout);
    await expect(database.query(`SELECT FROM "My ""Schema"""."Records"`)).rejects.toMatchObject({
      code: '42P01',
    });
  });

  it('prints the default names without options', () => {
    expect(cli('ddl')).toMatchObject({ status: 0, stdout: idempotencyDdl().up });
  });

  it('prints its usage when it is asked', () => {
    expect(cli('--help')).toMatchObject({ status: 0, stdout: expect.stringContaining('Usage:') });
  });

  it.each([
    [[], 'Usage:'],
    [['sql'], 'Usage:'],
    [['ddl', 'extra'], 'Usage:'],
    [['ddl', '--tabel', 'x'], '--tabel'],
    [['ddl', '--table', ''], 'must have 1 to 51 bytes'],
    [['ddl', '--schema', ''], 'schema’s name is empty'],
  ])('fails with %j, and prints no SQL', (args, complaint) => {
    expect(cli(...args)).toMatchObject({ status: 2, stdout: '', stderr: expect.stringContaining(complaint) });
  });
});

const quote = (name: string): string => `"${name.replaceAll('"', '""')}"`;
