import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import * as fc from 'fast-check';
import { Readable } from 'node:stream';
import { finished } from 'node:stream/promises';
import { CARRIERS, WriterServer, type Desk, type WireAnswer } from '../helpers/writers.js';

/*
 * Writers that nobody has thought of. Each is run without the library, with it, and once more for the replay; what the clients
 * get is compared byte by byte.
 */

/** Set to repeat a run: `SEED=… npm test -- test/property/writers.spec.ts`. */
const SEED = Number(process.env['SEED'] ?? Date.now() % 1_000_000);
const PROGRAMS = Number(process.env['PROGRAMS'] ?? 120);

type Step =
  | { readonly kind: 'status'; readonly status: number }
  | { readonly kind: 'set' | 'append'; readonly name: string; readonly value: string | string[] }
  | { readonly kind: 'remove'; readonly name: string }
  | { readonly kind: 'head'; readonly status: number; readonly headers: Record<string, string> }
  | { readonly kind: 'flush' | 'pause' | 'destroy' | 'throw' }
  | { readonly kind: 'write' | 'end'; readonly chunk: Chunk }
  | { readonly kind: 'trailers'; readonly value: string }
  | { readonly kind: 'pipe'; readonly chunks: readonly Chunk[]; readonly ends: 'whole' | 'fails' | 'closes' };

/** A number is of so many bytes, more than a response takes at once. */
type Chunk = readonly [bytes: string | Buffer | number, encoding: BufferEncoding | undefined];

const bytesOf = ([bytes]: Chunk): string | Buffer =>
  typeof bytes === 'number' ? Buffer.alloc(bytes, 'large ') : bytes;

const status = fc.constantFrom(200, 201, 202, 204, 304, 400, 404, 409, 422, 500, 503);
const name = fc.constantFrom('X-One', 'x-two', 'Content-Type', 'ETag', 'Vary', 'Content-Language');
const value = fc.stringMatching(/^[ -~]{0,12}$/).map((text) => text.trim());
const text = fc.string({ unit: 'grapheme', maxLength: 200 });
const chunk: fc.Arbitrary<Chunk> = fc.oneof(
  text.map((bytes): Chunk => [bytes, undefined]),
  text.map((bytes): Chunk => [bytes, 'utf8']),
  fc.stringMatching(/^[ -~]{0,40}$/).map((bytes): Chunk => [bytes, 'latin1']),
  fc.base64String({ maxLength: 40 }).map((bytes): Chunk => [bytes, 'base64']),
  fc.uint8Array({ maxLength: 300 }).map((bytes): Chunk => [Buffer.from(bytes), undefined]),
  fc.integer({ min: 10_000, max: 90_000 }).map((length): Chunk => [length, undefined]),
);

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 3, arbitrary: status.map((to): Step => ({ kind: 'status', status: to })) },
  {
    weight: 3,
    arbitrary: fc.tuple(name, value).map(([of, to]): Step => ({ kind: 'set', name: of, value: to })),
  },
  {
    weight: 1,
    arbitrary: fc
      .tuple(fc.constantFrom('X-One', 'x-two'), fc.array(value, { minLength: 1, maxLength: 3 }))
      .map(([of, to]): Step => ({ kind: 'set', name: of, value: to })),
  },
  {
    weight: 1,
    arbitrary: fc
      .tuple(fc.constantFrom('X-One', 'x-two'), value)
      .map(([of, to]): Step => ({ kind: 'append', name: of, value: to })),
  },
  { weight: 1, arbitrary: name.map((of): Step => ({ kind: 'remove', name: of })) },
  {
    weight: 1,
    arbitrary: fc
      .tuple(status, fc.dictionary(fc.constantFrom('X-Three', 'X-Four'), value))
      .map(([to, headers]): Step => ({ kind: 'head', status: to, headers })),
  },
  { weight: 4, arbitrary: chunk.map((of): Step => ({ kind: 'write', chunk: of })) },
  { weight: 2, arbitrary: chunk.map((of): Step => ({ kind: 'end', chunk: of })) },
  { weight: 1, arbitrary: value.map((of): Step => ({ kind: 'trailers', value: of })) },
  {
    weight: 1,
    arbitrary: fc
      .tuple(fc.array(chunk, { maxLength: 4 }), fc.constantFrom('whole', 'whole', 'fails', 'closes'))
      .map(([chunks, ends]): Step => ({ kind: 'pipe', chunks, ends: ends as 'whole' })),
  },
  {
    weight: 1,
    arbitrary: fc.constantFrom('flush', 'pause', 'pause', 'destroy', 'throw').map((kind): Step => ({ kind })),
  },
);

/** What of a program makes an answer that only looks whole without the library. */
interface Fate {
  /** Its source gave up, or it did, after something of it was out. */
  isTorn: boolean;
}

/** Runs a program to its end. What node refuses is not done, and the program goes on. */
async function write({ raw }: Desk, program: readonly Step[], fate: Fate): Promise<void> {
  raw.on('error', () => undefined);
  for (const each of program) {
    if (each.kind === 'throw') {
      if (raw.writableEnded) continue;
      fate.isTorn ||= raw.headersSent;
      throw new Error('the program gave up');
    }
    if (each.kind === 'destroy') {
      if (raw.writableEnded) continue;
      fate.isTorn = true;
      raw.destroy();
      return;
    }
    try {
      await take(raw, each, fate);
    } catch {
      // Refused, as it is without the library.
    }
  }
  if (!raw.writableEnded) raw.end();
}

async function take(raw: Desk['raw'], each: Step, fate: Fate): Promise<void> {
  switch (each.kind) {
    case 'status':
      raw.statusCode = each.status;
      break;
    case 'set':
      // A copy, to which node appends.
      raw.setHeader(each.name, Array.isArray(each.value) ? [...each.value] : each.value);
      break;
    case 'append':
      raw.appendHeader(each.name, each.value);
      break;
    case 'remove':
      raw.removeHeader(each.name);
      break;
    case 'head':
      raw.writeHead(each.status, each.headers);
      break;
    case 'flush':
      raw.flushHeaders();
      break;
    case 'write':
    case 'end':
      // A stream of HTTP/2 is destroyed by what comes too late for it, and the answer is lost that was whole.
      if (raw.writableEnded && 'stream' in raw) break;
      Reflect.apply(raw[each.kind], raw, argumentsOf(each.chunk, 'stream' in raw));
      break;
    case 'trailers':
      // Behind the end it is too late for them, a little later for HTTP/2.
      if (!raw.writableEnded) raw.addTrailers({ 'X-Sum': each.value });
      break;
    case 'pipe':
      if (!raw.writableEnded) await pipe(raw, each, fate);
      break;
    default:
      await new Promise((resolve) => setImmediate(resolve));
  }
}

/** Node's HTTP/2 mixes up the encodings of what is written in one turn, and is given bytes. */
function argumentsOf(chunk: Chunk, isHttp2: boolean): unknown[] {
  const [, encoding] = chunk;
  const bytes = bytesOf(chunk);
  return isHttp2 && typeof bytes === 'string' ? [Buffer.from(bytes, encoding)] : [bytes, encoding];
}

async function pipe(raw: Desk['raw'], { chunks, ends }: Step & { kind: 'pipe' }, fate: Fate): Promise<void> {
  const source = new Readable({ read: () => undefined });
  source.pipe(raw, { end: false });
  const over = finished(source).catch(() => undefined);
  for (const each of chunks) source.push(bytesOf(each), each[1]);
  if (ends === 'whole') source.push(null);
  else {
    fate.isTorn = true;
    setImmediate(() => source.destroy(ends === 'fails' ? new Error('the source failed') : undefined));
  }
  await over;
}

/** How a body is framed and by whom it is kept is not the operation's. */
const OF_THE_EXCHANGE =
  /^(?:date|connection|keep-alive|transfer-encoding|content-length|idempotency-.*|x-powered-by)$/;

function seen(answer: WireAnswer | undefined): unknown {
  if (!answer) return undefined;
  // Node's HTTP/2 sends trailers behind an empty body, or does not, as its timing has it.
  const isBare = answer.reason === undefined && answer.body.length === 0;
  const headers = Object.entries(answer.headers).filter(([of]) => !OF_THE_EXCHANGE.test(of));
  const { status: code, reason, trailers, body } = answer;
  return {
    status: code,
    reason,
    headers: Object.fromEntries(headers),
    trailers: isBare ? {} : trailers,
    body: body.toString('base64'),
  };
}

describe.each(CARRIERS)('any writer (%s)', (carrier) => {
  let server: WriterServer;
  let keys = 0;

  beforeAll(async () => {
    server = await WriterServer.start(carrier);
  });

  afterAll(async () => server.close());

  it('gives the first client, and a retry, what it gives without the library', async () => {
    const property = fc.asyncProperty(fc.array(step, { maxLength: 8 }), async (program) => {
      const key = `program-${++keys}`;
      const fate: Fate = { isTorn: false };
      server.writes((desk) => write(desk, program, fate));
      const alone = await server.post('plain', key);
      const before = await server.orders();
      const first = await server.post('run', key);
      const effects = (await server.orders()) - before;
      const retry = await server.post('run', key);
      if (fate.isTorn) {
        // Without the library the client has a part of it, or what looks whole.
        expect(first?.status).toBe(500);
        expect(effects).toBe(0);
        return;
      }
      expect(seen(first)).toEqual(seen(alone));
      expect(seen(retry)).toEqual(seen(alone));
      const isResult = alone!.status < 500;
      expect(effects).toBe(isResult ? 1 : 0);
      expect(retry?.headers['idempotency-replayed']).toBe(isResult ? 'true' : undefined);
    });
    await fc.assert(property, { seed: SEED, numRuns: PROGRAMS, timeout: 60_000, endOnFailure: true });
  }, 600_000);
});
