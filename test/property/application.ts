import { randomUUID } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import {
  applyDecorators,
  Body,
  Controller,
  Get,
  Headers,
  HttpCode,
  HttpException,
  Post,
  Res,
  type Type,
} from '@nestjs/common';
import {
  currentExecution,
  Idempotent,
  IdempotencyPurgeService,
  IdempotencyService,
  outside,
  ReleaseIdempotencyKey,
  type Identity,
  type IdempotentRouteOptions,
} from 'nestjs-pg-idempotency';
import { Pool } from 'pg';
import { DataSource } from 'typeorm';
import { startApp, type Adapter, type TestApp } from '../helpers/application.js';
import type { Program } from '../helpers/application-process.js';
import { poolOf } from '../helpers/connections.js';
import type { TestDatabase } from '../helpers/database.js';
import { ENDPOINTS, type Endpoint, type Script, type Settlement } from './model.js';

/** Something wrong with the application, for runs that must find it. */
export type PlantedFault =
  | 'handlers are unprotected'
  | 'all clients are one'
  | 'bodies do not count'
  | 'writes go past the transaction';

export interface PropertyAppOptions {
  readonly adapter: Adapter;
  readonly databaseUrl: string;
  /** Its connections bear this name. */
  readonly name: string;
  readonly fault?: PlantedFault;
  /** Hears `held` when a handler stays where its request wants it to. */
  readonly onMilestone?: (milestone: 'held') => void;
}

/** Where a request wants its handler to stay for ever: the value of the header `X-Hold`. */
export type Hold = 'before the write' | 'after the write';

/** Headers a handler can set, by the part of its answer that is different in every run. */
const SETTABLE: Readonly<Record<string, (execution: string) => string | string[]>> = {
  location: (execution) => `/things/${execution}`,
  link: (execution) => [`</things/${execution}>; rel="self"`, '</things>; rel="collection"'],
  'cache-control': () => 'no-store, max-age=0',
  'x-label': () => 'na\u00efve \u00a3',
  'set-cookie': (execution) => [`session=${execution}; HttpOnly`, 'theme=dark'],
  'x-request-id': (execution) => execution,
};

/** Names of the headers that handlers can set. */
export const SETTABLE_HEADERS = Object.keys(SETTABLE);

/** Those of them that are never recorded (P8), or belong to one exchange. */
export const UNRECORDED_HEADERS = ['set-cookie', 'x-request-id'];

/** An answer larger than this cannot be kept. */
const MAX_SIZE = 8_192;

/** How long duplicates wait, and how long a lease holds: until a test moves its end. */
const PATIENCE = '1s';
const LEASE = '10m';

/** One row for each time that a handler was entered, and one for each time that its write was committed. */
export async function createJournal(database: TestDatabase): Promise<void> {
  for (const table of ['entries', 'effects']) {
    await database.query(
      `CREATE TABLE ${table} (client text NOT NULL, endpoint text NOT NULL, key text NOT NULL)`,
    );
  }
}

/** An application whose handlers do what the body of their request tells them. */
export async function startPropertyApp(options: PropertyAppOptions): Promise<TestApp> {
  const { adapter, databaseUrl, name, fault, onMilestone = () => undefined } = options;
  // Entries are to be seen whatever becomes of the handler's transaction, and without the library's help.
  const journal = new Pool({ connectionString: databaseUrl, max: 2, application_name: name });
  journal.on('error', () => undefined);
  const surroundings: Surroundings = { journal, onMilestone, fault };
  const controllers = Object.keys(ENDPOINTS).map((endpoint) => scripted(endpoint as Endpoint, surroundings));
  const app = await startApp({
    adapter,
    databaseUrl,
    controllers: [...controllers, OperatorController],
    typeorm: { applicationName: name },
    idempotency: {
      client: ({ headers }: { headers: IncomingHttpHeaders }) =>
        fault === 'all clients are one' ? 'all' : String(headers['x-client']),
      lease: LEASE,
      whenInProgress: { wait: PATIENCE },
      response: { maxSize: MAX_SIZE },
    },
  });
  const close = async (): Promise<void> => {
    await app.close();
    await journal.end();
  };
  return { ...app, close };
}

/** The same, for `startApplicationProcess`. */
export function propertyProgram(options: PropertyAppOptions): Program {
  return { module: './test/property/application.ts', start: 'startPropertyApp', options };
}

interface Surroundings {
  readonly journal: Pool;
  readonly onMilestone: (milestone: 'held') => void;
  readonly fault: PlantedFault | undefined;
}

/** What Express' response and Fastify's reply have in common. */
interface Reply {
  status(code: number): unknown;
  header(name: string, value: string | string[]): unknown;
}

interface Call {
  readonly headers: IncomingHttpHeaders;
  readonly reply: Reply;
  readonly dataSource: DataSource;
}

function scripted(endpoint: Endpoint, surroundings: Surroundings): Type {
  const protection =
    surroundings.fault === 'handlers are unprotected'
      ? applyDecorators()
      : Idempotent(routeOptions(endpoint, surroundings.fault));

  @Controller(endpoint)
  class ScriptedController {
    constructor(private readonly dataSource: DataSource) {}

    @Post(':thing')
    @protection
    run(
      @Body() script: Script,
      @Headers() headers: IncomingHttpHeaders,
      @Res({ passthrough: true }) reply: Reply,
    ): Promise<unknown> {
      return perform(script, { headers, reply, dataSource: this.dataSource }, endpoint, surroundings);
    }
  }
  return ScriptedController;
}

function routeOptions(endpoint: Endpoint, fault: PlantedFault | undefined): IdempotentRouteOptions {
  const options: IdempotentRouteOptions = { endpoint, ...ENDPOINTS[endpoint] };
  return fault === 'bodies do not count' ? { ...options, fingerprint: { body: () => 'any' } } : options;
}

async function perform(
  script: Script,
  { headers, reply, dataSource }: Call,
  endpoint: Endpoint,
  { journal, onMilestone, fault }: Surroundings,
): Promise<unknown> {
  const identity = [headers['x-client'], endpoint, headers['idempotency-key']];
  const execution = currentExecution();
  const passing = async (place: Hold): Promise<void> => {
    if (headers['x-hold'] !== place) return;
    onMilestone('held');
    await new Promise<never>(() => undefined);
  };
  const write = (): Promise<unknown> => dataSource.query('INSERT INTO effects VALUES ($1, $2, $3)', identity);

  await journal.query('INSERT INTO entries VALUES ($1, $2, $3)', identity);
  const nonce = randomUUID();
  reply.header('x-execution', nonce);
  reply.header('x-attempt', String(execution?.attempt ?? 1));
  for (const name of script.headers) reply.header(name, SETTABLE[name]!(nonce));
  if (script.ending === 'releases')
    throw new ReleaseIdempotencyKey(new HttpException('not now', script.status));
  await passing('before the write');
  if (fault === 'writes go past the transaction') await outside(write);
  else if (execution && ENDPOINTS[endpoint].mode === 'lease') await execution.transaction(write);
  else await write();
  await passing('after the write');
  return finish(script, reply, nonce);
}

function finish({ ending, status, says }: Script, reply: Reply, nonce: string): unknown {
  switch (ending) {
    case 'throws':
    case 'puts off':
    case 'fails':
      throw new HttpException({ nonce, says }, status);
    case 'overflows':
      return { nonce, text: 'x'.repeat(MAX_SIZE) };
    default:
      break;
  }
  reply.status(status);
  if (status === 204) return undefined;
  if ('json' in says) return { nonce, says: says.json };
  reply.header('content-type', 'application/json; charset=utf-8');
  return says.text;
}

/** What an operator asks for. */
export type Operation =
  | { readonly operation: 'purge' }
  | { readonly operation: 'release'; readonly identity: Identity }
  | { readonly operation: 'settle'; readonly identity: Identity; readonly settlement: Settlement };

@Controller()
class OperatorController {
  constructor(
    private readonly records: IdempotencyService,
    private readonly purge: IdempotencyPurgeService,
    private readonly dataSource: DataSource,
  ) {}

  @Post('operations')
  @HttpCode(200)
  async operate(@Body() request: Operation): Promise<{ result: unknown }> {
    switch (request.operation) {
      case 'purge':
        return { result: await this.purge.purge() };
      case 'release':
        return { result: await this.records.release(request.identity) };
      case 'settle':
        return { result: await this.records.settle(request.identity, request.settlement) };
    }
  }

  /** Connections of the pool that somebody has not given back. */
  @Get('busy-connections')
  busyConnections(): { busy: number } {
    const pool = poolOf(this.dataSource);
    return { busy: pool.totalCount - pool.idleCount + pool.waitingCount };
  }
}
