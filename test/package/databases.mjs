// Databases for the smoke test: on the server of DATABASE_URL, or on one that lives as long as the test.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { resolve } from 'node:path';
import pg from 'pg';
import { run } from './process.mjs';

const launcher = 'dist/sample-app/postgres/embedded-postgres.js';

/** Finds or starts PostgreSQL. `create` makes an empty database and returns its URL. */
export async function openServer() {
  const server = process.env['DATABASE_URL']
    ? { url: process.env['DATABASE_URL'], stop: async () => {} }
    : await startEmbedded();
  const names = [];
  return {
    async create(name) {
      const unique = `${name}_${process.pid}`;
      await query(server.url, `CREATE DATABASE "${unique}"`);
      names.push(unique);
      const url = new URL(server.url);
      url.pathname = `/${unique}`;
      return url.href;
    },
    async close() {
      for (const name of names) {
        await query(server.url, `DROP DATABASE "${name}" WITH (FORCE)`);
      }
      await server.stop();
    },
  };
}

/** Runs one statement on a connection of its own. */
export async function query(url, sql) {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query(sql)).rows;
  } finally {
    await client.end();
  }
}

async function startEmbedded() {
  // The launcher is part of the sample application, which is compiled without checking it again.
  const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc');
  await run(process.execPath, [tsc, '-p', 'tsconfig.sample.json', '--noCheck']);
  const { startPostgres } = await import(pathToFileURL(resolve(launcher)).href);
  return startPostgres({ durable: false });
}
