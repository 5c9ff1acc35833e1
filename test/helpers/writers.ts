import { request as request1, Agent, type IncomingHttpHeaders, type ServerResponse } from 'node:http';
import { connect, type ClientHttp2Session } from 'node:http2';
import { connect as connectSocket } from 'node:net';
import { Controller, Post, Res } from '@nestjs/common';
import { Idempotent } from 'nestjs-pg-idempotency';
import { startApp, type TestApp, type TestAppOptions } from './application.js';
import { createTestDatabase, type TestDatabase } from './database.js';
import { createShop, Shop } from './shop.js';

/** What carries requests: both adapters, and Fastify's HTTP/2. */
export const CARRIERS = ['express', 'fastify', 'http2'] as const;
export type Carrier = (typeof CARRIERS)[number];

/** What a writer is given. */
export interface Desk {
  /** Node's own response. */
  readonly raw: ServerResponse & Record<string, unknown>;
  /** Express' response, or Fastify's reply, with all that either can do. */
  readonly response: AnyResponse;
}

/** As the handlers of tests use it, which know on what they run. */
interface AnyResponse {
  status(status: number): AnyResponse;
  code(status: number): AnyResponse;
  type(type: string): AnyResponse;
  json(body: unknown): AnyResponse;
  send(body?: unknown): AnyResponse;
  sendFile(path: string, done?: () => void): AnyResponse;
  download(path: string, done?: () => void): AnyResponse;
  trailer(name: string, value: () => Promise<string>): AnyResponse;
}

/** A handler that answers by itself. */
export type Writer = (desk: Desk) => unknown;

/** An answer as a client of HTTP/1 or HTTP/2 has got it; `undefined` where the connection broke. */
export interface WireAnswer {
  readonly status: number;
  readonly reason: string | undefined;
  readonly headers: IncomingHttpHeaders;
  readonly trailers: Readonly<Record<string, unknown>>;
  readonly body: Buffer;
}

export interface WriterClient {
  readonly answer: Promise<WireAnswer | undefined>;
  /** Goes away without waiting for the answer. */
  leave(): void;
}

/**
 * A server of one handler, which does what the test says, on routes that differ in how it is protected: `plain` (not at all),
 * `run`, `lease`, and `plain-returned`, `returned`, `lease-returned`, where Nest answers with what it returns.
 */
export class WriterServer {
  readonly #agent = new Agent({ keepAlive: true });
  #session: ClientHttp2Session | undefined;
  #informed: number[] | undefined;

  private constructor(
    readonly carrier: Carrier,
    readonly database: TestDatabase,
    private readonly app: TestApp,
    private readonly state: { writer: Writer; runs: number },
  ) {}

  static async start(carrier: Carrier, options: Partial<TestAppOptions> = {}): Promise<WriterServer> {
    const database = await createTestDatabase();
    await createShop(database);
    const state = { writer: (() => undefined) as Writer, runs: 0 };
    const app = await startApp({
      adapter: carrier === 'express' ? 'express' : 'fastify',
      databaseUrl: database.url,
      controllers: [controllerOf(state)],
      ...options,
      ...(carrier === 'http2' ? { fastify: { http2: true, ...options.fastify } as object } : {}),
    });
    return new WriterServer(carrier, database, app, state);
  }

  /** How often the handler was entered. */
  get runs(): number {
    return this.state.runs;
  }

  /** Sets what the handler does from now on. */
  writes(writer: Writer): void {
    this.state.writer = writer;
  }

  post(route: string, key: string, headers: Record<string, string> = {}): Promise<WireAnswer | undefined> {
    return this.start(route, key, headers).answer;
  }

  start(route: string, key: string, headers: Record<string, string> = {}): WriterClient {
    const own = { 'content-type': 'application/json', 'idempotency-key': key, ...headers };
    return this.carrier === 'http2' ? this.#start2(route, own) : this.#start1(route, own);
  }

  /** Notes the answers before the answer. */
  informs(route: string, key: string, informed: number[]): Promise<WireAnswer | undefined> {
    this.#informed = informed;
    const answer = this.post(route, key);
    this.#informed = undefined;
    return answer;
  }

  /** All that comes back for these bytes, on a connection of their own. */
  raw(request: string): Promise<string> {
    const { port, hostname } = new URL(this.app.url);
    return new Promise((resolve, reject) => {
      let received = '';
      connectSocket(Number(port), hostname)
        .on('data', (bytes: Buffer) => (received += bytes.toString('latin1')))
        .on('end', () => resolve(received))
        .on('error', reject)
        .write(request);
    });
  }

  async orders(): Promise<number> {
    const [row] = await this.database.query<{ count: number }>('SELECT count(*)::int AS count FROM orders');
    return row!.count;
  }

  async close(): Promise<void> {
    this.#session?.destroy();
    this.#agent.destroy();
    await this.app.close();
    await this.database.drop();
  }

  #start1(route: string, headers: Record<string, string>): WriterClient {
    const client = request1(`${this.app.url}/${route}`, { method: 'POST', headers, agent: this.#agent });
    const informed = this.#informed;
    client.on('information', ({ statusCode }) => informed?.push(statusCode));
    const answer = new Promise<WireAnswer | undefined>((resolve) => {
      client.on('error', () => resolve(undefined));
      client.on('response', (response) => {
        const chunks: Buffer[] = [];
        response.on('error', () => resolve(undefined));
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('end', () => {
          const { statusCode, statusMessage: reason, trailers } = response;
          const body = Buffer.concat(chunks);
          resolve({
            status: statusCode!,
            reason,
            headers: response.headers,
            trailers: { ...trailers },
            body,
          });
        });
      });
    });
    client.end('{}');
    return { answer, leave: () => client.destroy() };
  }

  #start2(route: string, headers: Record<string, string>): WriterClient {
    this.#session ??= connect(this.app.url).on('error', () => undefined);
    const stream = this.#session.request({ ':method': 'POST', ':path': `/${route}`, ...headers });
    const informed = this.#informed;
    stream.on('headers', (received) => informed?.push(received[':status'] ?? 0));
    const answer = new Promise<WireAnswer | undefined>((resolve) => {
      const chunks: Buffer[] = [];
      let head: IncomingHttpHeaders & { ':status'?: number } = {};
      let trailers: Record<string, unknown> = {};
      stream.on('response', (received) => (head = received));
      stream.on('trailers', (received) => (trailers = Object.fromEntries(Object.entries(received))));
      stream.on('data', (chunk: Buffer) => chunks.push(chunk));
      stream.on('error', () => resolve(undefined));
      stream.on('close', () => {
        const { ':status': status, ...rest } = head;
        const body = Buffer.concat(chunks);
        const isWhole = status !== undefined && stream.rstCode === 0;
        resolve(isWhole ? { status, reason: undefined, headers: rest, trailers, body } : undefined);
      });
    });
    stream.end('{}');
    return { answer, leave: () => stream.close(8) };
  }
}

function controllerOf(state: { writer: Writer; runs: number }): new () => object {
  @Controller()
  class WriterController extends Shop {
    async #write(response: { raw?: unknown }): Promise<unknown> {
      state.runs += 1;
      await this.order();
      return state.writer({
        raw: (response.raw ?? response) as Desk['raw'],
        response: response as AnyResponse,
      });
    }

    @Post('plain')
    plain(@Res() response: object): unknown {
      return this.#write(response);
    }

    @Post('run')
    @Idempotent({ maxDuration: '30s' })
    run(@Res() response: object): unknown {
      return this.#write(response);
    }

    @Post('short')
    @Idempotent({ maxDuration: 500 })
    short(@Res() response: object): unknown {
      return this.#write(response);
    }

    @Post('lease')
    @Idempotent({ mode: 'lease', maxDuration: '30s' })
    lease(@Res() response: object): unknown {
      return this.#write(response);
    }

    @Post('plain-returned')
    plainReturned(@Res({ passthrough: true }) response: object): unknown {
      return this.#write(response);
    }

    @Post('returned')
    @Idempotent({ maxDuration: '30s' })
    returned(@Res({ passthrough: true }) response: object): unknown {
      return this.#write(response);
    }

    @Post('lease-returned')
    @Idempotent({ mode: 'lease', maxDuration: '30s' })
    leaseReturned(@Res({ passthrough: true }) response: object): unknown {
      return this.#write(response);
    }
  }
  return WriterController;
}
