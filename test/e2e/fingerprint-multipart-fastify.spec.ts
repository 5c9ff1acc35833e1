import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import multipart, { type FastifyMultipartAttachFieldsToBodyOptions } from '@fastify/multipart';
import { Body, ConflictException, Controller, Post, Req, Res } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import { Idempotent } from 'nestjs-pg-idempotency';
import { randomUUID } from 'node:crypto';
import { Repository } from 'typeorm';
import { Application } from '../helpers/application.js';
import type { HttpResponse } from '../helpers/http.js';
import { field, file, postMultipart, type Part } from '../helpers/multipart.js';
import { expectReplay } from '../helpers/replay.js';
import { Order } from '../helpers/shop.js';

const FORM = [field('amount', '25'), file('file', 'content')];
/** Options of the plugin; none has the handler read the upload itself. */
type Options = Partial<FastifyMultipartAttachFieldsToBodyOptions>;

let runs = 0;

/** The part of Fastify's request and reply that is used. */
interface Request {
  file(): Promise<{ filename: string; toBuffer(): Promise<Buffer> }>;
}
interface Reply {
  status(code: number): Reply;
  send(body: object): void;
}

@Controller()
class UploadsController {
  constructor(@InjectRepository(Order) private readonly orders: Repository<Order>) {}

  @Post('upload')
  @Idempotent()
  upload(@Body() body: object): Promise<Order> {
    return this.#save(Object.keys(body).join());
  }

  @Post('lease')
  @Idempotent({ mode: 'lease' })
  lease(@Body() body: object): Promise<Order> {
    return this.#save(Object.keys(body).join());
  }

  @Post('response')
  @Idempotent()
  async response(@Body() body: object, @Res() reply: Reply): Promise<void> {
    reply.status(202).send(await this.#save(Object.keys(body).join()));
  }

  @Post('refused')
  @Idempotent()
  async refused(@Body() body: object): Promise<void> {
    await this.#save(Object.keys(body).join());
    throw new ConflictException(`run ${runs}`);
  }

  @Post('excluded')
  @Idempotent({ fingerprint: { exclude: ['sentAt', 'thumbnail'] } })
  excluded(@Body() body: object): Promise<Order> {
    return this.#save(Object.keys(body).join());
  }

  @Post('reads')
  @Idempotent()
  async reads(@Req() request: Request): Promise<Order> {
    return this.#save((await request.file()).filename);
  }

  @Post('computed')
  @Idempotent({
    fingerprint: {
      body: ({ headers }: { headers: Record<string, string> }) => headers['digest'] ?? '',
    },
  })
  async computed(@Req() request: Request): Promise<object> {
    const sent = await request.file();
    const { id } = await this.#save(sent.filename);
    return { id, content: (await sent.toBuffer()).toString() };
  }

  async #save(item: string): Promise<Order> {
    runs += 1;
    return this.orders.save({ item, price: runs });
  }
}

async function start(options: Options): Promise<Application> {
  return Application.start({
    adapter: 'fastify',
    controllers: [UploadsController],
    configure: async (app) => {
      await app.register(multipart, { limits: { fileSize: 1_000_000 }, ...options });
    },
  });
}

describe.each<[string, Options]>([
  ['true', { attachFieldsToBody: true }],
  ['keyValues', { attachFieldsToBody: 'keyValues' }],
])('an upload on Fastify, attached to the body (%s)', (kind, options) => {
  let app: Application;
  let key: string;

  beforeAll(async () => {
    app = await start(options);
  });

  beforeEach(async () => {
    key = randomUUID();
    runs = 0;
    await app.clear();
  });

  afterEach(() => app.idle());

  afterAll(() => app.close());

  const post = (path: string, parts: readonly Part[] = FORM): Promise<HttpResponse> =>
    postMultipart(`${app.url}/${path}`, parts, { 'Idempotency-Key': key });

  const expectRefused = async (path: string, parts: readonly Part[]): Promise<void> => {
    const refusal = await post(path, parts);
    expect({ status: refusal.status, body: refusal.json() }).toMatchObject({
      status: 422,
      body: { code: 'IDEMPOTENCY_KEY_REUSED' },
    });
  };

  it.each<[string, number]>([
    ['upload', 201],
    ['lease', 201],
    ['response', 202],
    ['refused', 409],
  ])('is replayed although its boundary is another (%s)', async (path, status) => {
    const original = await post(path);
    expect(original.status).toBe(status);
    expectReplay(original, await post(path));
    expect(runs).toBe(1);
    expect(await app.state()).toMatchObject({ orders: status === 409 ? 0 : 1, records: 1 });
  });

  it.each<[string, Part[]]>([
    ['one byte of the file', [field('amount', '25'), file('file', 'c0ntent')]],
    ['the length of the file', [field('amount', '25'), file('file', 'content\n')]],
    ['the name of the file’s field', [field('amount', '25'), file('fils', 'content')]],
    ['the value of a field', [field('amount', '26'), file('file', 'content')]],
    ['the name of a field', [field('amounts', '25'), file('file', 'content')]],
    ['one more field', [...FORM, field('more', '')]],
    ['a field sent twice', [field('amount', '25'), ...FORM]],
    ['a file that is missing', [field('amount', '25')]],
    ['a file that is text', [field('amount', '25'), field('file', 'content')]],
  ])('is refused when it differs in %s', async (_what, other) => {
    expect((await post('upload')).status).toBe(201);
    await expectRefused('upload', other);
    expect(runs).toBe(1);
  });

  it.each<[string, Part[]]>([
    ['name', [field('amount', '25'), file('file', 'content', 'b.txt')]],
    ['media type', [field('amount', '25'), file('file', 'content', 'a.txt', 'text/csv')]],
  ])('counts the %s of a file where the handler can see it', async (_what, other) => {
    const original = await post('upload');
    if (kind === 'true') await expectRefused('upload', other);
    else expectReplay(original, await post('upload', other));
    expect(runs).toBe(1);
  });

  it('counts the order of the files in a field, and of no others', async () => {
    const [first, second] = [file('file', 'one'), file('file', 'two')];
    const original = await post('upload', [first, field('x', '1'), second, field('y', '2')]);
    expectReplay(original, await post('upload', [field('y', '2'), first, second, field('x', '1')]));
    await expectRefused('upload', [second, field('x', '1'), first, field('y', '2')]);
    expect(runs).toBe(1);
  });

  it('tells fields that are JSON from what they look like', async () => {
    const json = (value: object): Part => ({
      name: 'data',
      content: JSON.stringify(value),
      type: 'application/json',
    });
    const original = await post('upload', [json({ type: 'field', value: 1, other: 1 })]);
    expectReplay(original, await post('upload', [json({ other: 1, value: 1, type: 'field' })]));
    await expectRefused('upload', [json({ type: 'field', value: 1, other: 2 })]);
  });

  it('leaves out what the route leaves out', async () => {
    const form = (sentAt: string, thumbnail: string, scan: string): Part[] => [
      field('sentAt', sentAt),
      file('thumbnail', thumbnail),
      file('scan', scan),
    ];
    const original = await post('excluded', form('9:00', 'small', 'large'));
    expectReplay(original, await post('excluded', form('9:01', 'tiny', 'large')));
    await expectRefused('excluded', form('9:00', 'small', 'huge'));
  });

  it('runs once when duplicates come together', async () => {
    const answers = await Promise.all(Array.from({ length: 5 }, () => post('upload')));
    expect(answers.map(({ status }) => status)).toEqual(Array(5).fill(201));
    expect(new Set(answers.map(({ text }) => text)).size).toBe(1);
    expect(runs).toBe(1);
  });

  it('leaves nothing behind over its limit, and the corrected one runs', async () => {
    const tooLarge = await post('upload', [file('file', Buffer.alloc(1_000_001))]);
    expect(tooLarge.status).toBe(413);
    expect(await app.state()).toMatchObject({ orders: 0, records: 0 });
    expect((await post('upload', [file('file', 'few')])).status).toBe(201);
    expect(await app.state()).toMatchObject({ orders: 1, records: 1 });
  });
});

describe.each<[string, Options]>([
  ['by the handler', {}],
  [
    'elsewhere',
    {
      attachFieldsToBody: true,
      onFile: (part) => part.file.forEach(() => undefined),
    },
  ],
])('an upload on Fastify that is read %s', (kind, options) => {
  let app: Application;

  beforeAll(async () => {
    runs = 0;
    app = await start(options);
  });

  afterAll(() => app.close());

  const post = (path: string, headers: Record<string, string> = {}): Promise<HttpResponse> =>
    postMultipart(`${app.url}/${path}`, FORM, { 'Idempotency-Key': 'one', ...headers });

  it('is refused with its remedy', async () => {
    const refusal = await post('reads');
    expect({ status: refusal.status, body: refusal.json() }).toMatchObject({
      status: 415,
      body: {
        code: 'IDEMPOTENCY_BODY_NOT_FINGERPRINTABLE',
        detail: expect.stringContaining(kind === 'elsewhere' ? 'fingerprint.body' : 'attachFieldsToBody'),
      },
    });
    expect(await app.state()).toMatchObject({ orders: 0, records: 0 });
  });

  if (kind === 'by the handler') {
    it('counts by what the route computes, and is read by its handler', async () => {
      const original = await post('computed', { Digest: 'one' });
      expect(original.json()).toMatchObject({ content: 'content' });
      expectReplay(original, await post('computed', { Digest: 'one' }));
      expect((await post('computed', { Digest: 'two' })).status).toBe(422);
      expect(runs).toBe(1);
    });
  }
});
