import { startPostgres } from './embedded-postgres.js';

/** Where an embedded server would keep its data, and how safely. */
export interface ProvideDatabaseOptions {
  /** Directory of the data; without it the data is temporary. */
  readonly dataDir?: string;
  /** Whether committed data must survive a crash of the machine. Default `true`; `false` is for tests. */
  readonly durable?: boolean;
}

/** A database to work with, whoever runs it. */
export interface ProvidedDatabase {
  readonly url: string;
  /** Whether this process runs the server. */
  readonly embedded: boolean;
  /** Stops the server if this process runs it. May be called twice. */
  stop(): Promise<void>;
}

/** Takes the database that `DATABASE_URL` names, or starts an embedded server when it is not set. */
export async function provideDatabase(options: ProvideDatabaseOptions): Promise<ProvidedDatabase> {
  const url = process.env.DATABASE_URL;
  if (url !== undefined && url !== '') return { url, embedded: false, stop: () => Promise.resolve() };
  const server = await startPostgres({ durable: true, ...options });
  return { url: server.url, embedded: true, stop: () => server.stop() };
}
