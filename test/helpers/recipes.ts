import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { dirname, join } from 'node:path';
import { ADAPTERS, type Adapter } from './application.js';
import { createEmptyDatabase, type TestDatabase } from './database.js';
import { runTypeScript, type TypeScriptProcess } from './child-process.js';

/** Files on the disk, written there from the code blocks of a page. */
export interface PageFiles {
  /** Relative to the repository's root, with `src` in it. */
  readonly folder: string;
  readonly files: readonly string[];
  remove(): Promise<void>;
}

/** A page's application in a process of its own, on a database of its own. */
export interface RunningRecipe {
  readonly database: TestDatabase;
  /** One for each HTTP server of the process. */
  readonly urls: readonly string[];
  /** Sends SIGKILL, and starts the same again. */
  killAndRestart(): Promise<void>;
  close(): Promise<void>;
}

/** On several adapters at once, in one process: what one has answered, the other one replays. */
const ON_ADAPTERS = `
import { NestFactory } from '@nestjs/core';
import { ExpressAdapter } from '@nestjs/platform-express';
import { FastifyAdapter } from '@nestjs/platform-fastify';
const { AppModule } = await import('./FOLDER/src/app.module.ts');
const urls = [];
for (const adapter of process.env.ADAPTERS.split(' ')) {
  const http = adapter === 'express' ? new ExpressAdapter() : new FastifyAdapter();
  const app = await NestFactory.create(AppModule, http, { logger: ['error'] });
  await app.listen(0, '127.0.0.1');
  urls.push('http://127.0.0.1:' + app.getHttpServer().address().port);
}
console.log('listening ' + urls.join(' '));
`;

/** The page's own way to start. */
const MAIN = `
await import('./FOLDER/src/main.ts');
console.log('listening http://127.0.0.1:' + process.env.PORT);
`;

/**
 * The code blocks of a page that name their file in the first line, by that name. Blocks that are said to be for a variant,
 * as in `// src/main.ts (on Fastify)`, take the place of the others of their name where that variant is asked for.
 */
function filesOf(markdown: string, variant?: string): Map<string, string> {
  const files = new Map<string, string>();
  for (const [, name, of, code] of markdown.matchAll(/```ts\n\/\/ (src\/\S+)(?: \(([^)]+)\))?\n(.*?)```/gs)) {
    if (of === undefined ? !files.has(name!) : of === variant) files.set(name!, code!);
  }
  return files;
}

/** Writes a page's files inside the repository, where the packages that they import are found. */
export async function writeFiles(page: string, variant?: string): Promise<PageFiles> {
  await mkdir('node_modules/.cache', { recursive: true });
  const folder = await mkdtemp('node_modules/.cache/page-');
  const files: string[] = [];
  for (const [name, code] of filesOf(await readFile(page, 'utf8'), variant)) {
    const file = join(folder, name);
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, code);
    files.push(file);
  }
  return { folder, files, remove: () => rm(folder, { recursive: true, force: true }) };
}

/** Starts what a page describes: by its `main.ts` where it has one, else on these adapters. */
export async function startRecipe(
  { folder, files }: PageFiles,
  environment: NodeJS.ProcessEnv = {},
  adapters: readonly Adapter[] = ADAPTERS,
): Promise<RunningRecipe> {
  const database = await createEmptyDatabase();
  const hasMain = files.includes(join(folder, 'src/main.ts'));
  const source = (hasMain ? MAIN : ON_ADAPTERS).replace('FOLDER', folder);
  let running: TypeScriptProcess | undefined;
  let urls: string[] = [];
  const start = async (): Promise<void> => {
    const port = hasMain ? await freePort() : 0;
    running = runTypeScript(source, {
      DATABASE_URL: database.url,
      PORT: String(port),
      ADAPTERS: adapters.join(' '),
      ...environment,
    });
    if (process.env['TEST_LOG']) running.process.stderr?.pipe(process.stderr);
    urls = await listening(running);
  };
  const kill = async (): Promise<void> => running?.kill();
  const close = async (): Promise<void> => {
    await kill();
    await database.drop();
  };
  await start().catch(async (error: unknown) => {
    await close();
    throw error;
  });
  return {
    database,
    get urls() {
      return urls;
    },
    killAndRestart: async () => {
      await kill();
      await start();
    },
    close,
  };
}

/** Nest logs before it listens. */
async function listening(running: TypeScriptProcess): Promise<string[]> {
  for (;;) {
    const [said, ...urls] = (await running.nextLine()).split(' ');
    if (said === 'listening') return urls;
  }
}

/** A port that nobody listens on, for a process that has to be told one. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
