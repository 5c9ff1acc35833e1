import { appendFile, chown, cp, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { executable, findBinaries, type PostgresBinaries } from '../../sample-app/postgres/binaries.js';
import { ensureDataDirectory } from '../../sample-app/postgres/data-directory.js';
import { runnableBinaries, temporaryPlace } from '../../sample-app/postgres/places.js';
import { chooseServerUser, type ServerUser } from '../../sample-app/postgres/server-user.js';
import { launchSupervised, type SupervisedServer } from '../../sample-app/postgres/watchdog.js';
import { withClient } from './admin.js';
import { eventually } from './conditions.js';
import { freePort } from './free-port.js';
import { startTcpProxy, type TcpProxy, type TcpProxyTarget } from './tcp-proxy.js';

/** A primary and its standby, on one machine. */
export interface ReplicatedPostgres {
  /** Connection string of the primary. */
  readonly primaryUrl: string;
  readonly primary: TcpProxyTarget;
  /** Connection string of the standby, which answers reads from the start and writes once it is promoted. */
  readonly standbyUrl: string;
  readonly standby: TcpProxyTarget;
  /** What the standby receives the primary's log through. */
  readonly replication: TcpProxy;
  /** SIGKILL; resolves when the server is gone. It is never started again. */
  killPrimary(): Promise<void>;
  /** Makes the standby a primary, on a timeline of its own. */
  promote(): Promise<void>;
  stop(): Promise<void>;
}

/** How a commit on the primary waits: for the standby to have it on disk, or not at all. */
export type Replication = 'synchronous' | 'asynchronous';

const STANDBY = 'standby';

interface Installation {
  readonly binaries: PostgresBinaries;
  readonly user: ServerUser | undefined;
  readonly place: string;
}

/** Starts both from the binaries that all tests use, and resolves when the standby follows. */
export async function startReplicatedPostgres(replication: Replication): Promise<ReplicatedPostgres> {
  const user = chooseServerUser();
  const installation: Installation = {
    binaries: await runnableBinaries(await findBinaries(), user),
    user,
    place: await temporaryPlace(user),
  };
  const { place } = installation;
  const [primaryPort, standbyPort] = [await freePort(), await freePort()];
  const through = await startTcpProxy({ host: '127.0.0.1', port: primaryPort });
  await createDataDirectories(installation, through.port);
  const primary = await launch(installation, 'primary', primaryPort, {
    wal_keep_size: '1GB',
    ...(replication === 'synchronous' ? { synchronous_standby_names: STANDBY } : {}),
  });
  const standby = await launch(installation, 'standby', standbyPort, {});
  await withClient(urlAt(primaryPort), (client) =>
    eventually(
      async () =>
        (await client.query(`SELECT FROM pg_stat_replication WHERE state = 'streaming'`)).rowCount === 1,
      { timeoutMs: 60_000 },
    ),
  );
  return {
    primaryUrl: urlAt(primaryPort),
    primary: { host: '127.0.0.1', port: primaryPort },
    standbyUrl: urlAt(standbyPort),
    standby: { host: '127.0.0.1', port: standbyPort },
    replication: through,
    killPrimary: async () => {
      process.kill(primary.pid, 'SIGKILL');
      await eventually(() => primary.ended() !== undefined);
    },
    promote: async () => {
      await withClient(urlAt(standbyPort), (client) => client.query('SELECT pg_promote(true, 60)'));
    },
    stop: async () => {
      await Promise.all([primary.stop(), standby.stop()]);
      await through.close();
      await rm(place, { recursive: true, force: true });
    },
  };
}

function urlAt(port: number): string {
  return `postgres://postgres@127.0.0.1:${port}/postgres`;
}

/** A copy that is taken before the primary has ever run is a base backup, and follows its log from the beginning. */
async function createDataDirectories(installation: Installation, port: number): Promise<void> {
  const { binaries, user, place } = installation;
  const [primary, standby] = [join(place, 'primary'), join(place, 'standby')];
  await ensureDataDirectory(primary, { binaries, user, durable: true });
  await appendFile(join(primary, 'pg_hba.conf'), 'host replication all 127.0.0.1/32 trust\n');
  await cp(primary, standby, { recursive: true, preserveTimestamps: true });
  await writeFile(join(standby, 'standby.signal'), '');
  await appendFile(
    join(standby, 'postgresql.conf'),
    `primary_conninfo = 'host=127.0.0.1 port=${port} user=postgres application_name=${STANDBY}'\n`,
  );
  if (user !== undefined) await own(standby, user);
}

async function own(directory: string, { uid, gid }: ServerUser): Promise<void> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  await chown(directory, uid, gid);
  for (const entry of entries) await chown(join(entry.parentPath, entry.name), uid, gid);
}

async function launch(
  { binaries, user, place }: Installation,
  name: 'primary' | 'standby',
  port: number,
  settings: Readonly<Record<string, string>>,
): Promise<SupervisedServer> {
  const dataDir = join(place, name);
  const all = { listen_addresses: '127.0.0.1', unix_socket_directories: '', port: String(port), ...settings };
  const server = await launchSupervised({
    command: executable(binaries, 'postgres'),
    arguments: ['-D', dataDir, ...Object.entries(all).flatMap(([key, value]) => ['-c', `${key}=${value}`])],
    user,
    dataDir,
    pgCtl: executable(binaries, 'pg_ctl'),
    log: join(dataDir, 'server.log'),
    remove: undefined,
  });
  await eventually(() => withClient(urlAt(port), (client) => client.query('SELECT 1')), {
    timeoutMs: 60_000,
  });
  return server;
}
