import type { AddressInfo } from 'node:net';
import type { INestApplication } from '@nestjs/common';
import { createSampleApp } from './create-sample-app.js';
import { greeting } from './greeting.js';
import { provideDatabase, type ProvidedDatabase } from './postgres/database-url.js';
import { readSettings, StartError, type Settings } from './settings.js';
import { onShutdown } from './shutdown.js';

/** The API keys are public: only this machine is served. */
const HOST = '127.0.0.1';
const DATA_DIRECTORY = '.data/postgres';

async function main(): Promise<void> {
  const settings = readSettings(process.env);
  const database = await provideDatabase({ dataDir: DATA_DIRECTORY }).catch(refuse('No database'));
  try {
    await serve(settings, database);
  } catch (error) {
    await database.stop();
    throw error;
  }
}

async function serve({ adapter, port }: Settings, database: ProvidedDatabase): Promise<void> {
  const app = await createSampleApp({ databaseUrl: database.url, adapter }).catch(refuse('No application'));
  try {
    await listen(app, port);
  } catch (error) {
    await app.close();
    throw error;
  }
  onShutdown(() => void stop(app, database).catch(fail));
  const address = addressOf(app);
  console.log(greeting(address, database));
  console.log(`Ready on ${address} (${adapter})`);
}

async function listen(app: INestApplication, port: number): Promise<void> {
  try {
    await app.listen(port, HOST);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw cause;
    const message = `Port ${port} is in use: stop what listens there, or set PORT to another port.`;
    throw new StartError(message, { cause });
  }
}

function addressOf(app: INestApplication): string {
  const server = app.getHttpServer() as { address(): AddressInfo };
  return `http://${HOST}:${server.address().port}`;
}

/** Lets the requests that are running end. */
async function stop(app: INestApplication, database: ProvidedDatabase): Promise<void> {
  await app.close();
  await database.stop();
}

/** Says what is missing in front of why: the reason alone does not tell which of the two parts it is about. */
function refuse(what: string): (cause: Error) => never {
  return (cause) => {
    throw new StartError(`${what}: ${cause.message}`, { cause });
  };
}

function fail(error: unknown): void {
  console.error(error instanceof StartError ? error.message : error);
  // What is left open after a failure must not keep the process.
  process.exit(1);
}

await main().catch(fail);
