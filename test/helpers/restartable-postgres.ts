import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { executable, findBinaries } from '../../sample-app/postgres/binaries.js';
import { awaitFormerServer, ensureDataDirectory } from '../../sample-app/postgres/data-directory.js';
import { runnableBinaries, temporaryPlace } from '../../sample-app/postgres/places.js';
import { chooseServerUser } from '../../sample-app/postgres/server-user.js';
import { launchSupervised, type SupervisedServer } from '../../sample-app/postgres/watchdog.js';
import { withClient } from './admin.js';
import { eventually } from './conditions.js';
import { freePort } from './free-port.js';

/** A PostgreSQL server of a test's own that can be restarted on its port, with its data. */
export interface RestartablePostgres {
  readonly url: string;
  /** As `pg_ctl restart -m immediate`: nobody is told, and the server recovers from its log. */
  restart(): Promise<void>;
  stop(): Promise<void>;
}

export async function startRestartablePostgres(): Promise<RestartablePostgres> {
  const user = chooseServerUser();
  const binaries = await runnableBinaries(await findBinaries(), user);
  const place = await temporaryPlace(user);
  const dataDir = join(place, 'data');
  await ensureDataDirectory(dataDir, { binaries, user, durable: true });
  const port = await freePort();
  const url = `postgres://postgres@127.0.0.1:${port}/postgres`;
  const settings = ['listen_addresses=127.0.0.1', 'unix_socket_directories=', `port=${port}`];
  const start = async (): Promise<SupervisedServer> => {
    await awaitFormerServer(dataDir);
    const server = await launchSupervised({
      command: executable(binaries, 'postgres'),
      arguments: ['-D', dataDir, ...settings.flatMap((setting) => ['-c', setting])],
      user,
      dataDir,
      pgCtl: executable(binaries, 'pg_ctl'),
      log: join(dataDir, 'server.log'),
      remove: undefined,
    });
    await eventually(() => withClient(url, (client) => client.query('SELECT 1')), { timeoutMs: 60_000 });
    return server;
  };
  let server = await start();
  return {
    url,
    restart: async () => {
      process.kill(server.pid, 'SIGQUIT');
      await eventually(() => server.ended() !== undefined);
      await server.stop();
      server = await start();
    },
    stop: async () => {
      await server.stop();
      await rm(place, { recursive: true, force: true });
    },
  };
}
