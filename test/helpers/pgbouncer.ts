import { chown, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { temporaryPlace } from '../../sample-app/postgres/places.js';
import { chooseServerUser, type ServerUser } from '../../sample-app/postgres/server-user.js';
import { launchSupervised, type SupervisedServer } from '../../sample-app/postgres/watchdog.js';
import { withClient } from './admin.js';
import { eventually } from './conditions.js';
import { freePort } from './free-port.js';

/** A PgBouncer in transaction pooling mode, in front of every database of one server. */
export interface RunningPgBouncer {
  /** Connection string of the console, whose host and port are those of the pooled databases. */
  readonly consoleUrl: string;
  /**
   * Stops it. May be called twice.
   *
   * @throws when it had ended by itself, with the end of its log.
   */
  stop(): Promise<void>;
}

/** What PgBouncer calls the database that is its own console. */
export const CONSOLE = 'pgbouncer';

/**
 * Connections to the server for each database: fewer than the ten that an application of the tests may open, so that
 * clients really share, and as many as the most transactions that a test holds open at the same time.
 */
const SERVER_CONNECTIONS = 6;

const ATTEMPTS = 5;

/** Starts PgBouncer on a free port of the loopback interface; it ends with this process, in whatever way that ends. */
export async function startPgBouncer(command: string, databaseUrl: string): Promise<RunningPgBouncer> {
  // Like PostgreSQL it refuses to run as root.
  const user = chooseServerUser();
  for (let attempt = 1; ; attempt++) {
    const place = await temporaryPlace(user);
    const port = await freePort();
    const config = join(place, 'pgbouncer.ini');
    await writeConfiguration(config, configuration(databaseUrl, port), user);
    const log = join(place, 'pgbouncer.log');
    const process = await launch(command, config, { user, place, log });
    const consoleUrl = `postgres://postgres@127.0.0.1:${port}/${CONSOLE}`;
    const failure = await untilReady(process, consoleUrl);
    if (failure === undefined) return { consoleUrl, stop: () => stop(process, log) };
    const lines = await readFile(log, 'utf8').catch(() => '');
    await process.stop();
    await rm(place, { recursive: true, force: true });
    // Between finding a free port and binding it, somebody else may take it.
    if (attempt === ATTEMPTS || !lines.includes('Address already in use')) {
      throw new Error(`PgBouncer did not start: ${failure}. Its log:\n${lines}`);
    }
  }
}

function launch(
  command: string,
  config: string,
  { user, place, log }: { user: ServerUser | undefined; place: string; log: string },
): Promise<SupervisedServer> {
  return launchSupervised({
    command,
    arguments: [config],
    user,
    dataDir: place,
    pgCtl: '',
    log,
    remove: place,
  });
}

/** Nothing that a client does may end a pooler that others use as well. */
async function stop(process: SupervisedServer, log: string): Promise<void> {
  const ended = process.ended();
  const lines = ended === undefined ? '' : await readFile(log, 'utf8').catch(() => '');
  await process.stop();
  if (lines !== '') throw new Error(`PgBouncer ended by itself, ${ended}: ${lines.slice(-2_000)}`);
}

/** The server's password may be in it. */
async function writeConfiguration(path: string, text: string, user: ServerUser | undefined): Promise<void> {
  await writeFile(path, text, { mode: 0o600 });
  if (user !== undefined) await chown(path, user.uid, user.gid);
}

function configuration(databaseUrl: string, port: number): string {
  const { hostname, port: serverPort, username, password } = new URL(databaseUrl);
  const target = {
    host: hostname,
    port: serverPort === '' ? '5432' : serverPort,
    user: decodeURIComponent(username),
    ...(password === '' ? {} : { password: decodeURIComponent(password) }),
  };
  const entries = Object.entries(target).map(([name, value]) => `${name}='${value.replaceAll("'", "''")}'`);
  return `[databases]
* = ${entries.join(' ')}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = ${SERVER_CONNECTIONS}
max_client_conn = 1000
server_tls_sslmode = prefer
; The next transaction of a client gets another connection wherever there is one: what a session keeps is missed.
server_round_robin = 1
`;
}

/** Resolves with what went wrong, or with nothing once it answers. */
async function untilReady(process: SupervisedServer, consoleUrl: string): Promise<string | undefined> {
  return eventually(async () => {
    const ended = process.ended();
    if (ended !== undefined) return `it ended with ${ended}`;
    await withClient(consoleUrl, (client) => client.query('SHOW VERSION'));
    return undefined;
  });
}
