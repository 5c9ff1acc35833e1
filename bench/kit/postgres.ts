import { randomBytes } from 'node:crypto';
import { statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { Pool, type QueryResultRow } from 'pg';
import { startPostgres, type RunningPostgres } from '../../sample-app/postgres/embedded-postgres.js';

/** Files of the log that are there before anything is measured, of 16 MB each. */
const LOG_FILES = 160;

/** What differs from PostgreSQL's defaults: room, so that checkpoints do not fall into single measurements. */
const SETTINGS = {
  shared_buffers: '512MB',
  max_wal_size: '8GB',
  min_wal_size: `${LOG_FILES * 16}MB`,
  checkpoint_timeout: '30min',
  max_connections: '300',
  track_io_timing: 'off',
};

/** What a reader has to know of the server. */
const TELLING = [
  'server_version',
  'fsync',
  'synchronous_commit',
  'full_page_writes',
  'wal_sync_method',
  'shared_buffers',
  'max_wal_size',
  'min_wal_size',
  'checkpoint_timeout',
  'max_connections',
  'autovacuum_naptime',
];

const TMPFS = 0x01021994;

/** A database server that loses nothing that it has committed. */
export class Postgres {
  readonly #names: string[] = [];

  private constructor(
    private readonly admin: Pool,
    private readonly url: string,
    private readonly server: RunningPostgres | undefined,
    readonly settings: Readonly<Record<string, string>>,
  ) {}

  /** Starts a server of our own, or takes the one that `DATABASE_URL` names. */
  static async start(): Promise<Postgres> {
    const given = process.env['DATABASE_URL'];
    if (!given) avoidMemoryDisk();
    const server = given ? undefined : await startPostgres({ durable: true, settings: SETTINGS });
    const url = given ?? server!.url;
    const admin = poolOn(url, 1);
    try {
      const { rows } = await admin.query<{ name: string; setting: string }>(
        `SELECT name, current_setting(name) AS setting FROM pg_settings WHERE name = ANY ($1)`,
        [TELLING],
      );
      const settings = Object.fromEntries(rows.map(({ name, setting }) => [name, setting]));
      for (const name of ['fsync', 'synchronous_commit']) {
        if (settings[name] === 'off')
          throw new Error(`${name} is off on this server: what is measured has to be durable`);
      }
      if (server) await makeLogFiles(admin);
      return new Postgres(admin, url, server, settings);
    } catch (error) {
      await admin.end();
      await server?.stop();
      throw error;
    }
  }

  /** Process id of the server, where it is ours: otherwise its CPU time is not known. */
  get pid(): number | undefined {
    return this.server?.pid;
  }

  async createDatabase(): Promise<Database> {
    const name = `bench_${randomBytes(6).toString('hex')}`;
    await this.admin.query(`CREATE DATABASE ${name} TEMPLATE template0`);
    this.#names.push(name);
    const url = new URL(this.url);
    url.pathname = `/${name}`;
    return new Database(url.href);
  }

  /** Writes out what is changed, so that one measurement does not pay for the one before. */
  async checkpoint(): Promise<void> {
    await this.admin.query('CHECKPOINT');
  }

  /** Sets what is read again on reload, on a server of our own; whether it did. */
  async set(name: string, value: string): Promise<boolean> {
    if (this.server === undefined) return false;
    await this.admin.query(`ALTER SYSTEM SET ${name} = '${value}'`);
    await this.admin.query('SELECT pg_reload_conf()');
    return true;
  }

  /** Takes back what was set. */
  async reset(name: string): Promise<void> {
    await this.admin.query(`ALTER SYSTEM RESET ${name}`);
    await this.admin.query('SELECT pg_reload_conf()');
  }

  async stop(): Promise<void> {
    try {
      // A server of our own takes its data with it.
      if (this.server === undefined) {
        for (const name of this.#names)
          await this.admin.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
      }
    } finally {
      await this.admin.end().catch(() => undefined);
      await this.server?.stop();
    }
  }
}

/** One database, and a small pool for looking into it. */
export class Database {
  readonly #pool: Pool;

  constructor(readonly url: string) {
    this.#pool = poolOn(url, 2);
  }

  async query<Row extends QueryResultRow>(sql: string, parameters: unknown[] = []): Promise<Row[]> {
    return (await this.#pool.query<Row>(sql, parameters)).rows;
  }

  /** The one value of the one row. */
  async number(sql: string, parameters: unknown[] = []): Promise<number> {
    const [row] = await this.query<Record<string, unknown>>(sql, parameters);
    return Number(Object.values(row ?? {})[0]);
  }

  async close(): Promise<void> {
    await this.#pool.end();
  }
}

function poolOn(url: string, max: number): Pool {
  const pool = new Pool({ connectionString: url, max });
  // A server that is being stopped ends idle connections.
  pool.on('error', () => undefined);
  return pool;
}

/**
 * A server that has run for a while writes its log over the files of the log from before. A new one makes each file when it gets
 * there, 16 MB of zeroes, for which everybody waits who commits: some requests would pay for the server's youth.
 */
async function makeLogFiles(admin: Pool): Promise<void> {
  for (let file = 0; file < LOG_FILES; file++) {
    // There is no switch where nothing was written.
    await admin.query(`SELECT pg_logical_emit_message(false, 'bench', '')`);
    await admin.query('SELECT pg_switch_wal()');
  }
  // Names the files that are done with for use again.
  await admin.query('CHECKPOINT');
}

/** Where temporary files live in memory, a sync costs nothing, and a server that syncs would look faster than it is. */
function avoidMemoryDisk(): void {
  if (process.platform !== 'linux' || statfsSync(tmpdir()).type !== TMPFS) return;
  if (statfsSync('/var/tmp').type === TMPFS) {
    throw new Error(
      'Temporary files are in memory here: set TMPDIR to a folder on disk that everybody can enter.',
    );
  }
  process.env['TMPDIR'] = '/var/tmp';
}
