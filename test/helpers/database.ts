import { randomBytes } from 'node:crypto';
import { DatabaseError, Pool, type Client } from 'pg';
import { idempotencyDdl } from '../../migrations/index.js';
import { asAdmin, namePrefix, pooledUrlOf, THROUGH_POOLER, urlOf, withClient } from './admin.js';
import { eventually } from './conditions.js';
import { partitionedDdl } from './partitions.js';

/** Whether the idempotency table of test databases is partitioned. */
export const PARTITIONED = process.env['PASS'] === 'partitioned';

/** A database of one test file's own. */
export interface TestDatabase {
  /** Connection string of this database, for applications: in the pass through PgBouncer it leads there. */
  readonly url: string;
  /** Connection string past PgBouncer, for a test's own sessions that keep state or watch the server. */
  readonly directUrl: string;
  readonly name: string;
  /** Runs one statement through a small pool of the test's own, past PgBouncer, and resolves with its rows. */
  query<Row = Record<string, unknown>>(sql: string, parameters?: readonly unknown[]): Promise<Row[]>;
  /** Drops the database, whoever is still connected to it. May be called twice. */
  drop(): Promise<void>;
}

/**
 * Creates a database that has the idempotency table, as a clone of a template that all workers share. One of another encoding
 * is made anew.
 */
export async function createTestDatabase({
  encoding,
}: { readonly encoding?: string } = {}): Promise<TestDatabase> {
  if (encoding === undefined) return createFrom(await templateDatabase());
  const database = await createFrom('template0', `ENCODING '${encoding}' LC_COLLATE 'C' LC_CTYPE 'C'`);
  await withClient(database.directUrl, (client) => client.query(idempotencyDdl().up));
  return database;
}

/** Creates a database without any table. */
export async function createEmptyDatabase(): Promise<TestDatabase> {
  return createFrom('template0');
}

async function createFrom(template: string, options = ''): Promise<TestDatabase> {
  const name = `${namePrefix()}${randomBytes(6).toString('hex')}`;
  await asAdmin((admin) =>
    unlessAccessed(() => admin.query(`CREATE DATABASE "${name}" TEMPLATE "${template}" ${options}`)),
  );
  const directUrl = urlOf(name);
  const pool = new Pool({ connectionString: directUrl, max: 4 });
  // Tests terminate backends on purpose; an idle connection of this pool that dies of it is no news.
  pool.on('error', () => undefined);
  let dropped: Promise<void> | undefined;
  return {
    url: THROUGH_POOLER ? pooledUrlOf(name) : directUrl,
    directUrl,
    name,
    query: async <Row>(sql: string, parameters: readonly unknown[] = []) =>
      (await pool.query(sql, [...parameters])).rows as Row[],
    drop: () => (dropped ??= dropDatabase(name, pool)),
  };
}

async function dropDatabase(name: string, pool: Pool): Promise<void> {
  await pool.end();
  await asAdmin((admin) => admin.query(`DROP DATABASE IF EXISTS "${name}" WITH (FORCE)`));
}

let template: Promise<string> | undefined;

function templateDatabase(): Promise<string> {
  return (template ??= buildTemplate());
}

/** Workers start together: the first one builds the template under a lock, the others find it by its name. */
async function buildTemplate(): Promise<string> {
  const name = `${namePrefix()}template`;
  await asAdmin(async (admin) => {
    await admin.query('SELECT pg_advisory_lock(hashtext($1))', [name]);
    const { rowCount } = await admin.query('SELECT FROM pg_database WHERE datname = $1', [name]);
    if (rowCount === 0) await buildTemplateAs(name, admin);
  });
  return name;
}

/** The final name appears only when the tables are there: a worker that died half-way leaves no half template. */
async function buildTemplateAs(name: string, admin: Client): Promise<void> {
  const draft = `${name}_draft`;
  const { up } = idempotencyDdl();
  await admin.query(`DROP DATABASE IF EXISTS "${draft}" WITH (FORCE)`);
  await unlessAccessed(() => admin.query(`CREATE DATABASE "${draft}" TEMPLATE template0`));
  await withClient(urlOf(draft), (client) => client.query(PARTITIONED ? partitionedDdl(up) : up));
  await unlessAccessed(() => admin.query(`ALTER DATABASE "${draft}" RENAME TO "${name}"`));
}

const OBJECT_IN_USE = '55006';

/** A backend lives on for a moment after its client has gone, and a database in use can be neither cloned nor renamed. */
async function unlessAccessed(statement: () => Promise<unknown>): Promise<void> {
  const failure = await eventually(() =>
    statement().then(
      () => undefined,
      (error: unknown) => {
        if (error instanceof DatabaseError && error.code === OBJECT_IN_USE) throw error;
        return { error };
      },
    ),
  );
  if (failure !== undefined) throw failure.error;
}
