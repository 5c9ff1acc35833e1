import { randomUUID } from 'node:crypto';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from '@jest/globals';
import { eventually } from '../helpers/conditions.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson, sendRequest, type HttpResponse } from '../helpers/http.js';
import { compileApps } from './compile.mjs';

const HERE = fileURLToPath(new URL('.', import.meta.url));

type Adapter = 'express' | 'fastify';

/** Where an application runs. */
export interface Platform {
  readonly nest: 11 | 12;
  readonly adapter: Adapter;
}

/** Both releases of Nest on both adapters. */
export const EVERYWHERE: readonly Platform[] = [
  { nest: 11, adapter: 'express' },
  { nest: 11, adapter: 'fastify' },
  { nest: 12, adapter: 'express' },
  { nest: 12, adapter: 'fastify' },
];

/** Each release and each adapter once, for packages that do not touch the adapter. */
export const EITHER: readonly Platform[] = [
  { nest: 11, adapter: 'express' },
  { nest: 12, adapter: 'fastify' },
];

/** For what there is on Express only. */
export const EXPRESS = EVERYWHERE.filter(({ adapter }) => adapter === 'express');

/** For packages that do not support Nest 12. */
export const NEST11 = EVERYWHERE.filter(({ nest }) => nest === 11);

export interface SceneOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** A compiled module that is loaded before the application, as tracing has to be. */
  readonly preload?: string;
}

/** An application of `apps/` in a process of its own, on a database of its own. */
export class Scene {
  #database: TestDatabase | undefined;
  #process: AppProcess | undefined;
  #url: string | undefined;

  constructor(
    private readonly app: string,
    private readonly platform: Platform,
    private readonly options: SceneOptions = {},
  ) {}

  /** Resolves when the application listens. */
  async open(): Promise<void> {
    this.#database = await createDatabase();
    this.#process = await startProcess(this.app, this.platform, this.#database.url, this.options);
    this.#url = await this.#process.listening;
  }

  async close(): Promise<void> {
    await this.#process?.stop();
    await this.#database?.drop();
  }

  get url(): string {
    if (this.#url === undefined) throw new Error('The application has not started');
    return this.#url;
  }

  /** Sends `{ name }` by POST, under a new key unless the headers have one. */
  post(path: string, name: unknown, headers: Readonly<Record<string, string>> = {}): Promise<HttpResponse> {
    return postJson(this.url + path, { name }, { 'Idempotency-Key': randomUUID(), ...headers });
  }

  /** What `GET path` answers. */
  async get(path: string): Promise<unknown> {
    return (await sendRequest(this.url + path)).json();
  }

  /** How many rows of that name are in the table of effects. */
  async rows(name: string): Promise<number> {
    const rows = await this.#database!.query('SELECT FROM effects WHERE name = $1', [name]);
    return rows.length;
  }

  /** Whether the process has ended. */
  get ended(): boolean {
    return this.#process?.hasEnded() ?? false;
  }

  /** Everything that the process has printed. */
  output(): string {
    return this.#process?.output() ?? '';
  }

  /** The lines in which Node has warned, and what Nest's and pino's loggers print from "warn" on. */
  complaints(): string[] {
    return this.output()
      .split('\n')
      .filter((line) => /\b(WARN|ERROR|FATAL|Warning:)|"level":[4-6]0\b/.test(line));
  }
}

/**
 * One effect and one byte-exact replay, for two requests that come one after the other and for two that come together.
 * Names are made anew, so that rows can be counted, and are more than ASCII, so that a wrong encoding shows.
 */
export async function expectProtected(
  scene: Scene,
  path = '/effects',
  headers: Readonly<Record<string, string>> = {},
): Promise<void> {
  const first = `Zoë’s ${randomUUID()}`;
  const key = { 'Idempotency-Key': randomUUID(), ...headers };
  const original = await scene.post(path, first, key);
  expect([original.status, original.text]).toEqual([201, expect.stringContaining(first)]);
  expect(original.headers['idempotency-replayed']).toBeUndefined();
  expectReplay(await scene.post(path, first, key), original);
  expect(await scene.rows(first)).toBe(1);

  const second = `Zoë’s ${randomUUID()}`;
  const shared = { 'Idempotency-Key': randomUUID(), ...headers };
  const [one, other] = await Promise.all([
    scene.post(path, second, shared),
    scene.post(path, second, shared),
  ]);
  if (one.headers['idempotency-replayed'] === undefined) expectReplay(other, one);
  else expectReplay(one, other);
  expect(await scene.rows(second)).toBe(1);
}

/** The same answer, byte for byte, and marked. */
export function expectReplay(replay: HttpResponse, original: HttpResponse): void {
  expect([replay.status, replay.text]).toEqual([original.status, original.text]);
  expect(replay.body.equals(original.body)).toBe(true);
  expect(replay.headers['content-type']).toBe(original.headers['content-type']);
  expect(replay.headers['idempotency-replayed']).toBe('true');
  expect(original.headers['idempotency-replayed']).toBeUndefined();
}

async function createDatabase(): Promise<TestDatabase> {
  const database = await createTestDatabase();
  await database.query(
    'CREATE TABLE effects (id serial PRIMARY KEY, name text NOT NULL, nonce text NOT NULL)',
  );
  return database;
}

interface AppProcess {
  /** Rejects when the process ends instead. */
  readonly listening: Promise<string>;
  hasEnded(): boolean;
  output(): string;
  stop(): Promise<void>;
}

let compiled: Promise<void> | undefined;

async function startProcess(
  app: string,
  { nest, adapter }: Platform,
  databaseUrl: string,
  { env = {}, preload }: SceneOptions,
): Promise<AppProcess> {
  const folder = join(HERE, `nest${nest}`);
  if (!existsSync(join(folder, 'node_modules/nestjs-pg-idempotency')))
    throw new Error('The packages are not installed: run node test/interop/install.mjs');
  await (compiled ??= compileApps());
  const child = spawn(
    process.execPath,
    [...(preload === undefined ? [] : ['--import', `./dist/${preload}.js`]), `dist/${app}.js`],
    {
      cwd: folder,
      env: {
        ...process.env,
        NODE_OPTIONS: '',
        NO_COLOR: '1',
        DATABASE_URL: databaseUrl,
        NEST: String(nest),
        ADAPTER: adapter,
        ...env,
      },
      // The process ends with its standard input, and so with this one.
      stdio: ['pipe', 'pipe', 'pipe'],
    },
  );
  const closed = once(child, 'close');
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => (output += text));
  let ended = false;
  void closed.then(() => (ended = true));
  const listening = eventually(
    () => {
      const url = /listening (http:\S+)/.exec(output)?.[1];
      if (url === undefined && !ended) return false;
      return { url };
    },
    { timeoutMs: 110_000 },
  ).then(({ url }) => {
    if (url === undefined) throw new Error(`The application ended:\n${output}`);
    return url;
  });
  return {
    listening: listening.catch((error: unknown) => {
      child.kill('SIGKILL');
      throw error;
    }),
    hasEnded: () => ended,
    output: () => output,
    stop: async () => {
      child.kill('SIGTERM');
      await closed;
    },
  };
}
