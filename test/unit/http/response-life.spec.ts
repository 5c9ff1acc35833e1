import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { EventEmitter, once } from 'node:events';
import { Agent, createServer, request as request1, ServerResponse, type Server } from 'node:http';
import {
  connect,
  createServer as createServer2,
  Http2ServerResponse,
  type ClientHttp2Session,
  type Http2Server,
} from 'node:http2';
import type { AddressInfo } from 'node:net';
import { Readable, Stream } from 'node:stream';
import { HeldResponse } from '../../../lib/transports/http/response.js';
import { deferred } from '../../helpers/conditions.js';

/*
 * What a writer sees and hears of a held response, beside what it sees and hears of one that node sends: both are run, for
 * everything that node's own classes have. A difference that is not listed here with its reason fails.
 */

const WIRES = ['http1', 'http2'] as const;
type Wire = (typeof WIRES)[number];
type How = 'plain' | 'held';

/** A response, whose writer may do what it likes. */
type Response = ServerResponse & Record<string, unknown>;

interface Difference {
  readonly wire?: Wire;
  /** Where: labels of moments, or names of states. All where there are none. */
  readonly at?: readonly string[];
  readonly what: string;
  readonly held: unknown;
  readonly because: string;
}

/** One server of each kind. Its handler is what the test says. */
let onRequest: (raw: Response) => void;
let http1: Server;
let http2: Http2Server;
let session: ClientHttp2Session;
const agent = new Agent({ keepAlive: true });

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
/** As many turns of the event loop as node needs to send something small. */
const turns = async (): Promise<void> => {
  for (let count = 0; count < 20; count++) await turn();
};

beforeAll(async () => {
  http1 = createServer({ highWaterMark: 16_384 }, (_request, raw) => onRequest(raw as Response));
  http2 = createServer2((_request, raw) => onRequest(raw as unknown as Response));
  for (const server of [http1, http2]) {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
  }
  session = connect(`http://127.0.0.1:${(http2.address() as AddressInfo).port}`);
  await once(session, 'connect');
});

afterAll(async () => {
  session.destroy();
  agent.destroy();
  http1.closeAllConnections();
  for (const server of [http1, http2]) {
    server.close();
    await once(server, 'close');
  }
});

/** `once` of node:events would give up on an error. */
const closing = (raw: Response): Promise<void> =>
  new Promise((resolve) => void raw.once('close', () => resolve()));

interface Client {
  /** Goes away without waiting for the answer. */
  leave(): void;
  readonly gone: Promise<void>;
}

function send(wire: Wire): Client {
  const gone = deferred();
  if (wire === 'http1') {
    const { port } = http1.address() as AddressInfo;
    const client = request1({ port, host: '127.0.0.1', method: 'POST', agent });
    client.on('response', (response) => response.on('error', () => undefined).resume());
    client.on('error', () => undefined).on('close', gone.resolve);
    client.end('{}');
    return { leave: () => client.destroy(), gone: gone.promise };
  }
  const stream = session.request({ ':method': 'POST', ':path': '/' });
  stream.on('error', () => undefined).on('close', gone.resolve);
  stream.resume();
  stream.end('{}');
  return { leave: () => stream.close(8), gone: gone.promise };
}

/** Runs a writer on a response of its own, with or without a hold around it, until its client has heard of the end. */
async function run<Result>(
  wire: Wire,
  how: How,
  write: (raw: Response, client: Client) => Promise<Result>,
  before?: (raw: Response) => void,
): Promise<Result> {
  const arrived = deferred<Response>();
  onRequest = (raw) => {
    raw.req.on('error', () => undefined).on('end', () => arrived.resolve(raw));
    raw.req.resume();
  };
  const client = send(wire);
  const raw = await arrived.promise;
  await turn();
  before?.(raw);
  const held = how === 'held' ? new HeldResponse(raw, 1_000_000, () => undefined) : undefined;
  try {
    return await write(raw, client);
  } finally {
    if (held) {
      held.deliver(held.held(), {}, () => ({ status: 500, headers: {}, body: Buffer.alloc(0) }));
    }
    if (!raw.writableEnded) raw.destroy();
    client.leave();
    await client.gone;
  }
}

/** The same differences for both: what is expected of the held one. */
function expected(
  plain: Record<string, unknown>,
  wire: Wire,
  at: string,
  differences: readonly Difference[],
): unknown {
  const own = differences.filter((one) => (one.wire ?? wire) === wire && (one.at?.includes(at) ?? true));
  const applied = own.filter(({ what }) => what in plain).map(({ what, held }) => [what, held]);
  return { ...plain, ...(Object.fromEntries(applied) as object) };
}

function prototypesOf(wire: Wire): object[] {
  const chain: object[] = [];
  let prototype: object = wire === 'http1' ? ServerResponse.prototype : Http2ServerResponse.prototype;
  for (; prototype !== Object.prototype; prototype = Object.getPrototypeOf(prototype) as object) {
    if (prototype !== EventEmitter.prototype && prototype !== Stream.prototype) chain.push(prototype);
  }
  return chain;
}

/** Of these, only `_header` is looked at by anybody but node. */
const isPublic = (name: string): boolean => !name.startsWith('_') || name === '_header' || name === '_closed';

describe('the held response is indistinguishable from a sent one', () => {
  describe.each(WIRES)('in its properties (%s)', (wire) => {
    /** What it would take a writer to see that a client is gone. */
    const CONNECTION = ['destroyed', 'closed', 'readable', 'writable', 'errored'];

    const shown = (value: unknown): unknown => {
      if (typeof value !== 'object' || value === null) return value;
      return Array.isArray(value) ? value.length : 'an object';
    };

    const look = (raw: Response): Record<string, unknown> => {
      const names = new Set([
        ...Object.getOwnPropertyNames(raw),
        ...prototypesOf(wire).flatMap(Object.getOwnPropertyNames),
      ]);
      const seen: Record<string, unknown> = {};
      for (const name of [...names].filter(isPublic).sort()) {
        // Deprecated: to look at it warns, and nothing else.
        if (typeof raw[name] !== 'function') seen[name] = shown(raw[name]);
      }
      // Text that only node reads, and a length to which node's own framing adds.
      seen._header = Boolean(raw._header);
      seen.writableLength = raw.writableLength > 0;
      seen.outputSize = undefined;
      seen.outputData = undefined;
      const { req } = raw;
      for (const [where, connection] of Object.entries({
        'res.socket': raw.socket,
        'req.socket': req.socket,
        'res.stream': raw.stream,
      })) {
        if (typeof connection !== 'object' || connection === null) continue;
        for (const name of CONNECTION.filter((each) => each in connection))
          seen[`${where}.${name}`] = Reflect.get(connection, name);
      }
      return seen;
    };

    type Moments = Record<string, Record<string, unknown>>;

    /** Everything at once, at every moment of a response's life. */
    const live = async (raw: Response, client: Client, leavesAt?: string): Promise<Moments> => {
      const moments: Moments = {};
      const at = async (moment: string): Promise<void> => {
        if (moment === leavesAt) {
          const connection = (
            wire === 'http1' ? raw.req.socket : Reflect.get(raw.req, 'stream')
          ) as EventEmitter;
          client.leave();
          await client.gone;
          // The server hears of it a little later.
          for (let count = 0; count < 200 && !isGoneFor(connection); count++) await turn();
          await turns();
        }
        moments[moment] = look(raw);
      };
      await at('taken over');
      raw.statusCode = 201;
      raw.setHeader('X-One', '1');
      await at('with a header');
      raw.writeHead(201, { 'X-Two': '2' });
      await at('begun');
      raw.write('some');
      await at('written');
      await turns();
      await at('waited');
      raw.write(Buffer.alloc(100_000));
      await at('full');
      const closed = closing(raw);
      raw.end('last');
      await at('ended');
      if (!leavesAt || raw.listenerCount('close') > 0) await closed;
      await turns();
      await at('closed');
      return moments;
    };

    const isGoneFor = (connection: EventEmitter): boolean =>
      // A stand-in says nothing of it, and what it stands for is not to be had here.
      (connection as unknown as { destroyed: boolean }).destroyed;

    const A_TURN_LATER =
      'Node may have handed everything to the system when `end` returns, or not: here it has never, and has a turn later.';
    const DIFFERENCES: Difference[] = [
      { wire: 'http1', at: ['ended'], what: 'writableFinished', held: false, because: A_TURN_LATER },
      { wire: 'http1', at: ['ended'], what: 'writableLength', held: true, because: A_TURN_LATER },
      ...['req.socket', 'res.stream'].flatMap((where) =>
        ['closed', 'destroyed'].map((name) => ({
          wire: 'http2' as const,
          at: ['closed'],
          what: `${where}.${name}`,
          held: false,
          because: 'The stream beneath has yet to carry the answer. Of the response, its events say so.',
        })),
      ),
      {
        wire: 'http1',
        at: ['written', 'full'],
        what: 'writableCorked',
        held: 0,
        because:
          'Node gathers what is written in one turn of the event loop by corking its socket; nothing is sent here.',
      },
      ...['res.socket', 'req.socket', 'res.stream'].map((where) => ({
        wire: 'http2' as const,
        at: ['ended', 'closed'],
        what: `${where}.writable`,
        held: true,
        because: 'The stream beneath is not ended yet. Of the response, `writableEnded` says so.',
      })),
      {
        wire: 'http1',
        at: ['begun', 'written', 'waited', 'full', 'ended', 'closed'],
        what: 'chunkedEncoding',
        held: false,
        because: 'How the body is framed is decided when it is sent, and all of it is known by then.',
      },
      {
        wire: 'http1',
        at: ['ended', 'closed'],
        what: 'finished',
        held: false,
        because:
          'node:http reads this field itself: a server that is closed ends connections whose response is finished at ' +
          'once, and the client would not get its answer. It is deprecated, and `writableEnded` says what is to be seen.',
      },
      {
        wire: 'http1',
        at: ['closed'],
        what: '_closed',
        held: false,
        because: 'node:http reads this field itself, and would not say that the connection closes.',
      },
    ];

    it('at every moment', async () => {
      const plain = await run(wire, 'plain', live);
      const held = await run(wire, 'held', live);
      for (const moment of Object.keys(plain)) {
        expect({ moment, ...held[moment] }).toEqual({
          moment,
          ...(expected(plain[moment]!, wire, moment, DIFFERENCES) as object),
        });
      }
    });

    it.each(['taken over', 'begun', 'waited', 'closed'])(
      'whose client leaves when it is %s',
      async (leavesAt) => {
        const plain = await run(wire, 'held', live);
        const held = await run(wire, 'held', (raw, client) => live(raw, client, leavesAt));
        expect(held).toEqual(plain);
      },
    );
  });

  describe.each(WIRES)('in its events (%s)', (wire) => {
    const EVENTS = [
      'socket',
      'pipe',
      'unpipe',
      'drain',
      'prefinish',
      'finish',
      'close',
      'error',
      'timeout',
      'aborted',
    ];

    const listen = (raw: Response, heard: string[]): void => {
      for (const event of EVENTS) raw.on(event, () => heard.push(event));
    };

    const sourceOf = (...chunks: string[]): Readable => Readable.from(chunks, { objectMode: false });

    /** What writers do, each of which ends with the last event there is. */
    const WRITERS: Record<string, (raw: Response, heard: string[]) => void> = {
      end: (raw) => raw.end('all'),
      'end with a callback': (raw, heard) => raw.end('all', () => heard.push('called by end')),
      'end, and the same again': (raw, heard) => {
        raw.end(() => heard.push('called by end'));
        raw.end(() => heard.push('called by the second end'));
      },
      'write with callbacks': (raw, heard) => {
        raw.write('some', () => heard.push('called by write'));
        raw.end('all', 'utf8', () => heard.push('called by end'));
      },
      'write more than is taken at once': (raw, heard) => {
        heard.push(`go on: ${raw.write(Buffer.alloc(500_000))}`);
        raw.once('drain', () => raw.end());
      },
      'a source': (raw) => void sourceOf('one', 'two').pipe(raw),
      'a source that does not end it': (raw) => {
        const source = sourceOf('one', 'two');
        source.pipe(raw, { end: false });
        source.on('end', () => raw.end('three'));
      },
      destroy: (raw) => raw.destroy(),
      'destroy after a part': (raw) => {
        raw.write('some');
        raw.destroy();
      },
      'an end, and a write behind it': (raw, heard) => {
        raw.end('all');
        raw.write('more', (error) => heard.push(`refused: ${String(Reflect.get(error ?? {}, 'code'))}`));
      },
    };

    const HANDED_ON =
      'Node may have handed everything to the system when `end` returns, or not: here it never has.';
    const ITS_TURN = 'Some releases of node call it before those who listen, and some behind them, as here.';
    const DIFFERENCES: Difference[] = [
      {
        wire: 'http1',
        at: ['end with a callback'],
        what: 'heard',
        held: ['prefinish', 'finish', 'called by end', 'close'],
        because: ITS_TURN,
      },
      {
        wire: 'http1',
        at: ['write with callbacks'],
        what: 'heard',
        held: ['prefinish', 'called by write', 'finish', 'called by end', 'close'],
        because: ITS_TURN,
      },
      {
        wire: 'http1',
        at: ['end, and the same again'],
        what: 'heard',
        held: ['prefinish', 'finish', 'called by end', 'called by the second end', 'close'],
        because: HANDED_ON,
      },
      {
        wire: 'http1',
        at: ['an end, and a write behind it'],
        what: 'heard',
        held: ['prefinish', 'refused: ERR_STREAM_WRITE_AFTER_END', 'error', 'finish', 'close'],
        because: HANDED_ON,
      },
      {
        wire: 'http2',
        at: ['end, and the same again'],
        what: 'heard',
        held: ['called by the second end', 'called by end', 'finish', 'close'],
        because: 'What is called in the next tick is called before what is called in the next turn.',
      },
    ];

    it.each(Object.keys(WRITERS))('of a writer that does: %s', async (name) => {
      const live = async (raw: Response): Promise<Record<string, unknown>> => {
        const heard: string[] = [];
        listen(raw, heard);
        const closed = closing(raw);
        WRITERS[name]!(raw, heard);
        await closed;
        await turns();
        return { heard };
      };
      const plain = await run(wire, 'plain', live);
      const held = await run(wire, 'held', live);
      expect(held).toEqual(expected(plain, wire, name, DIFFERENCES));
    });

    it('for those who listened before it was held, when it is sent', async () => {
      const heard: Record<How, string[]> = { plain: [], held: [] };
      for (const how of ['plain', 'held'] as const) {
        const closed = deferred();
        await run(
          wire,
          how,
          async (raw) => {
            raw.once('close', closed.resolve);
            raw.end('all');
            if (how === 'held') {
              await closed.promise;
              await turns();
              expect(heard.held).toEqual([]);
            }
          },
          (raw) => listen(raw, heard[how]),
        );
        await turns();
      }
      expect(heard.held).toEqual(heard.plain);
    });
  });

  describe.each(WIRES)('in its methods (%s)', (wire) => {
    /** What each may be called with. The first is what it is for. */
    const ARGUMENTS: Record<string, unknown[][]> = {
      writeHead: [
        [201],
        [201, { 'X-Two': '2' }],
        [201, ['X-Two', '2', 'X-Two', '3']],
        [201, ['X-Odd']],
        [201, { 'X-Undefined': undefined }],
        [201, { 'not a name': '1' }],
        [99],
        [1_000],
        ['none'],
      ],
      writeHeader: [[201, { 'X-Two': '2' }]],
      write: [['some'], [Buffer.from('some')], [''], [42], [null], [undefined], [{}], ['c29tZQ==', 'base64']],
      end: [[], ['all'], [Buffer.from('all')], [''], [null], [0], [42], [{}]],
      setHeader: [
        ['X-Two', '2'],
        ['X-Two', undefined],
        ['not a name', '2'],
        ['X-Two', 'a\nb'],
      ],
      setHeaders: [[new Map([['X-Two', '2']])]],
      appendHeader: [['X-Two', '2']],
      removeHeader: [['X-One'], [undefined]],
      getHeader: [['x-one'], ['x-two']],
      hasHeader: [['x-one'], ['x-two']],
      addTrailers: [[{ 'X-Sum': '7' }], [{ 'not a name': '7' }]],
      setTrailer: [
        ['X-Sum', '7'],
        ['not a name', '7'],
      ],
      writeEarlyHints: [[{ link: '</a>; rel=preload' }], [{ link: 'no link' }], ['none']],
      writeInformation: [[102]],
      createPushResponse: [
        [{ ':path': '/pushed' }, () => undefined],
        [{}, 'none'],
      ],
      setTimeout: [[0]],
      destroy: [[], [new Error('given up')]],
    };
    /** Of node alone, and what is nobody's to call while node holds the response. */
    const LEFT_OUT = new Set(['constructor', 'assignSocket', 'detachSocket', 'pipe', 'writeContinue']);

    const methods = [...new Set(prototypesOf(wire).flatMap(Object.getOwnPropertyNames))].filter((name) => {
      const prototype = prototypesOf(wire).find((each) => Object.hasOwn(each, name))!;
      const { value } = Object.getOwnPropertyDescriptor(prototype, name)!;
      return typeof value === 'function' && !name.startsWith('_') && !LEFT_OUT.has(name);
    });

    const STATES: Record<string, (raw: Response) => Promise<void> | void> = {
      held: () => undefined,
      begun: (raw) => raw.flushHeaders(),
      ended: (raw) => void raw.end('ended'),
      closed: async (raw) => {
        const closed = closing(raw);
        raw.end('ended');
        await closed;
      },
    };

    const outcomeOf = async (
      raw: Response,
      method: string,
      args: unknown[],
    ): Promise<Record<string, unknown>> => {
      const emitted: unknown[] = [];
      raw.on('error', (error: { code?: string }) => emitted.push(error.code ?? error));
      let outcome: Record<string, unknown>;
      try {
        const returned = Reflect.apply(raw[method] as (...args: unknown[]) => unknown, raw, args);
        outcome = { returned: returned === raw ? 'itself' : returned };
      } catch (error) {
        outcome = { thrown: (error as { code?: string }).code ?? error };
      }
      const seen = { status: raw.statusCode, sent: raw.headersSent, ended: raw.writableEnded };
      await turns();
      return { ...outcome, ...seen, emitted };
    };

    const inState = (call: string, states: readonly string[]): string[] =>
      states.map((state) => `${call} ${state}`);
    const SENT = ['begun', 'ended', 'closed'];
    const OWN_NAME = 'Node keeps the status among the headers of HTTP/2 once they are sent.';
    const UNCHECKED =
      'Node checks a status of HTTP/2 when it sends it, or lets it be; here it is checked when it is set.';
    const DIFFERENCES: Difference[] = [
      { at: inState('getHeaderNames()', SENT), what: 'returned', held: ['x-one'], because: OWN_NAME },
      { at: inState('getHeaders()', SENT), what: 'returned', held: { 'x-one': '1' }, because: OWN_NAME },
      ...['writeHead(99)', 'writeHead(1000)'].map((call) => ({
        at: inState(call, ['held']),
        what: 'status',
        held: 200,
        because: UNCHECKED,
      })),
      { at: ['writeHead("none") held'], what: 'returned', held: undefined, because: UNCHECKED },
      { at: ['writeHead("none") held'], what: 'sent', held: false, because: UNCHECKED },
      { at: ['writeHead("none") held'], what: 'status', held: 200, because: UNCHECKED },
      {
        at: ['writeHead("none") held'],
        what: 'thrown',
        held: 'ERR_HTTP2_STATUS_INVALID',
        because: UNCHECKED,
      },
    ].map((difference) => ({ wire: 'http2', ...difference }));

    const cases = methods.flatMap((method) =>
      (ARGUMENTS[method] ?? [[]]).flatMap((args) =>
        Object.keys(STATES).map((state) => ({ method, args, state })),
      ),
    );

    it.each(cases)('$method($args), when it is $state', async ({ method, args, state }) => {
      const live = async (raw: Response): Promise<Record<string, unknown>> => {
        raw.setHeader('X-One', '1');
        await STATES[state]!(raw);
        return outcomeOf(raw, method, args);
      };
      const plain = await run(wire, 'plain', live);
      const held = await run(wire, 'held', live);
      const call = `${method}(${args.map((arg) => JSON.stringify(arg)).join(', ')}) ${state}`;
      expect(held).toEqual(expected({ thrown: undefined, ...plain }, wire, call, DIFFERENCES));
    });
  });
});
