import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import multer from 'multer';
import { randomUUID } from 'node:crypto';
import { readdir, rm } from 'node:fs/promises';
import { request as startHttpRequest, type IncomingMessage } from 'node:http';
import { Application } from '../helpers/application.js';
import { isClaim, isCommit } from '../helpers/commit-faults.js';
import { deferred, eventually } from '../helpers/conditions.js';
import { sendRequest, type HttpResponse } from '../helpers/http.js';
import { field, file, multipartBody, postMultipart, type Part } from '../helpers/multipart.js';
import { expectReplay } from '../helpers/replay.js';
import { startDatabaseProxy, type TcpProxy } from '../helpers/tcp-proxy.js';
import {
  FOLDER,
  gate,
  impatience,
  ReadBeforeController,
  seen,
  SharedUploadController,
  UploadsController,
} from './fingerprint-multipart.fixture.js';

const FORM = [field('amount', '25'), file('file', 'content')];
const controllers = [UploadsController, SharedUploadController];

describe('an upload on Express', () => {
  let app: Application;
  /** Another process on the same database. */
  let neighbour: Application;
  let proxy: TcpProxy;
  let key: string;

  beforeAll(async () => {
    app = await Application.start({ adapter: 'express', controllers });
    proxy = await startDatabaseProxy(app.database.url);
    const databaseUrl = proxy.url(app.database.url);
    neighbour = await Application.start({
      database: app.database,
      adapter: 'express',
      controllers,
      databaseUrl,
    });
  });

  beforeEach(async () => {
    key = randomUUID();
    Object.assign(seen, { runs: 0, entered: 0, mapped: 0, left: 0 });
    gate.promise = Promise.resolve();
    await app.clear();
  });

  afterEach(() => app.idle());

  afterAll(async () => {
    await neighbour.close();
    await proxy.close();
    await app.close();
    await rm(FOLDER, { recursive: true });
  });

  const post = (
    path: string,
    parts: readonly Part[] = FORM,
    { host = app, headers = {} } = {},
  ): Promise<HttpResponse> =>
    postMultipart(`${host.url}/${path}`, parts, { 'Idempotency-Key': key, ...headers });

  const expectRefused = async (path: string, parts: readonly Part[]): Promise<void> => {
    const refusal = await post(path, parts);
    expect({ status: refusal.status, body: refusal.json() }).toMatchObject({
      status: 422,
      body: { code: 'IDEMPOTENCY_KEY_REUSED' },
    });
    expect(refusal.headers['content-type']).toBe('application/problem+json; charset=utf-8');
    expect(refusal.headers['idempotency-key']).toBe(key);
  };

  describe.each(['keyed', 'found'])('whose key is one of its fields (%s)', (path) => {
    const form = (name = key): Part[] => [field('orderKey', name), ...FORM];
    const submit = (parts: readonly Part[]): Promise<HttpResponse> =>
      postMultipart(`${app.url}/${path}`, parts, {});

    it('is replayed, and has its key echoed', async () => {
      const original = await submit(form());
      expect({ status: original.status, key: original.headers['idempotency-key'] }).toEqual({
        status: 201,
        key,
      });
      expectReplay(original, await submit(form()));
      expect(seen.runs).toBe(1);
    });

    it('is refused when its file is another', async () => {
      await submit(form());
      const refusal = await submit([...form().slice(0, -1), file('file', 'other')]);
      expect({ status: refusal.status, key: refusal.headers['idempotency-key'] }).toEqual({
        status: 422,
        key,
      });
      expect(seen.runs).toBe(1);
    });

    it('without it, is refused where it is required, and runs unprotected where it is not', async () => {
      const answers = [await submit(FORM), await submit(FORM)];
      const runs = path === 'found' ? 2 : 0;
      for (const { status } of answers) expect(status).toBe(path === 'found' ? 201 : 400);
      expect(seen.runs).toBe(runs);
      expect(await app.state()).toMatchObject({ orders: runs, records: 0 });
    });
  });

  describe('whose optional key is one of its fields', () => {
    const submit = (path: string, parts: readonly Part[]): Promise<HttpResponse> =>
      postMultipart(`${app.url}/${path}`, parts, {});

    it('runs unprotected where it has files only', async () => {
      for (let run = 0; run < 2; run++)
        expect((await submit('optional-field', [file('file', 'content')])).status).toBe(201);
      expect(await app.state()).toMatchObject({ orders: 2, records: 0 });
    });

    it('runs unprotected where what the handler streams is larger than a record may be', async () => {
      const answer = await submit('optional-streamed', FORM);
      expect([answer.status, answer.text]).toEqual([201, 'x'.repeat(1000)]);
      expect(await app.state()).toMatchObject({ orders: 1, records: 0 });
    });

    it('counts a file that came in a field of the name of the key', async () => {
      const form = (content: string): Part[] => [field('orderKey', key), file('orderKey', content)];
      expect((await submit('optional-field', form('one'))).status).toBe(201);
      expect((await submit('optional-field', form('two'))).status).toBe(422);
      expect(seen.runs).toBe(1);
    });
  });

  it('whose key breaks a rule is refused', async () => {
    const refusal = await postMultipart(`${app.url}/keyed`, [field('orderKey', 'short'), ...FORM], {});
    expect({ status: refusal.status, body: refusal.json() }).toMatchObject({
      status: 400,
      body: { code: 'IDEMPOTENCY_KEY_TOO_SHORT' },
    });
  });

  describe.each(['after', 'before', 'list', 'named', 'any', 'disk', 'lease', 'shared'])('(%s)', (path) => {
    it('is replayed although its boundary is another', async () => {
      const original = await post(path);
      expect(original.status).toBe(201);
      for (const host of [app, neighbour]) expectReplay(original, await post(path, FORM, { host }));
      expect(seen.runs).toBe(1);
      expect(await app.state()).toMatchObject({ orders: 1, records: 1 });
    });

    it.each<[string, Part[]]>([
      ['one byte of the file', [field('amount', '25'), file('file', 'c0ntent')]],
      ['the length of the file', [field('amount', '25'), file('file', 'content\n')]],
      ['the name of the file', [field('amount', '25'), file('file', 'content', 'b.txt')]],
      ['the media type of the file', [field('amount', '25'), file('file', 'content', 'a.txt', 'text/csv')]],
      ['the value of a field', [field('amount', '26'), file('file', 'content')]],
      ['the name of a field', [field('amounts', '25'), file('file', 'content')]],
      ['one more field', [...FORM, field('more', '')]],
      ['a field sent twice', [field('amount', '25'), ...FORM]],
      ['a file that is missing', [field('amount', '25')]],
    ])('is refused when it differs in %s', async (_what, other) => {
      expect((await post(path)).status).toBe(201);
      await expectRefused(path, other);
      expect(seen.runs).toBe(1);
      expect(await app.state()).toMatchObject({ orders: 1, records: 1 });
    });
  });

  it.each(['list', 'any', 'named'])('counts the order of the files in a field (%s)', async (path) => {
    const [first, second] = [file('file', 'one', '1.txt'), file('file', 'two', '2.txt')];
    const original = await post(path, [first, second]);
    expect(original.status).toBe(201);
    expectReplay(original, await post(path, [first, second]));
    await expectRefused(path, [second, first]);
    await expectRefused(path, [first]);
    await expectRefused(path, [first, second, second]);
    // The same bytes, divided in another way.
    await expectRefused(path, [file('file', 'on', '1.txt'), file('file', 'etwo', '2.txt')]);
    expect(seen.runs).toBe(1);
  });

  it('does not count the order of fields, and tells which file came in which', async () => {
    const [a, b] = [file('file', 'a'), file('other', 'b')];
    const original = await post('named', [field('x', '1'), field('y', '2'), a, b]);
    expectReplay(original, await post('named', [b, field('y', '2'), a, field('x', '1')]));
    await expectRefused('named', [field('x', '1'), field('y', '2'), file('file', 'b'), file('other', 'a')]);
    expect(seen.runs).toBe(1);
  });

  it('counts the values of one field in their order', async () => {
    const original = await post('after', [field('tag', 'a'), field('tag', 'b')]);
    expectReplay(original, await post('after', [field('tag', 'a'), field('tag', 'b')]));
    await expectRefused('after', [field('tag', 'b'), field('tag', 'a')]);
  });

  it('is not the form of the same fields in another media type', async () => {
    expect((await post('after', [field('amount', '25')])).status).toBe(201);
    const refusal = await sendRequest(`${app.url}/after`, {
      method: 'POST',
      headers: { 'Idempotency-Key': key, 'Content-Type': 'application/x-www-form-urlencoded' },
      body: 'amount=25',
    });
    expect(refusal.status).toBe(422);
  });

  it('may have fields only, or nothing at all', async () => {
    for (const parts of [[field('amount', '25')], []]) {
      for (const path of ['after', 'fields-only', 'any']) {
        key = randomUUID();
        const original = await post(path, parts);
        expect(original.status).toBe(201);
        expectReplay(original, await post(path, parts));
        await expectRefused(path, [field('amount', '26')]);
      }
    }
  });

  it('leaves nothing behind without a body, where multer misses the end of the form', async () => {
    const answer = await sendRequest(`${app.url}/after`, {
      method: 'POST',
      headers: { 'Idempotency-Key': key, 'Content-Type': 'multipart/form-data; boundary=edge' },
    });
    expect(answer.status).toBe(400);
    expect(await app.state()).toMatchObject({ orders: 0, records: 0 });
    expect((await post('after')).status).toBe(201);
  });

  it('leaves out what the route leaves out', async () => {
    const form = (sentAt: string, thumbnail: string, scan: string): Part[] => [
      field('meta[sentAt]', sentAt),
      field('meta[kind]', 'passport'),
      file('thumbnail', thumbnail),
      file('scan', scan),
    ];
    const original = await post('excluded', form('9:00', 'small', 'large'));
    expectReplay(original, await post('excluded', form('9:01', 'tiny', 'large')));
    await expectRefused('excluded', form('9:00', 'small', 'huge'));
  });

  it('is compared to its last byte when it is large', async () => {
    const large = Buffer.alloc(9 * 1024 * 1024, 'x');
    const other = Buffer.from(large);
    other[other.length - 1] = 0;
    for (const path of ['after', 'disk']) {
      key = randomUUID();
      const original = await post(path, [file('file', large)]);
      expectReplay(original, await post(path, [file('file', large)]));
      await expectRefused(path, [file('file', other)]);
    }
    expect(seen.runs).toBe(2);
  });

  describe('whose files are kept elsewhere', () => {
    it('is refused with its remedy', async () => {
      const refusal = await post('elsewhere');
      expect({ status: refusal.status, body: refusal.json() }).toMatchObject({
        status: 415,
        body: {
          code: 'IDEMPOTENCY_BODY_NOT_FINGERPRINTABLE',
          detail: expect.stringContaining('fingerprint.body'),
        },
      });
      expect(seen.runs).toBe(0);
      expect(await app.state()).toMatchObject({ orders: 0, records: 0 });
    });

    it('counts by what the route computes of them', async () => {
      const original = await post('computed');
      expect(original.status).toBe(201);
      expectReplay(original, await post('computed', [file('file', 'CONTENT')]));
      await expectRefused('computed', [file('file', 'longer content')]);
      expect(seen.runs).toBe(1);
    });
  });

  it('runs once when duplicates come together, in one process and in two', async () => {
    for (const path of ['after', 'disk', 'lease']) {
      key = randomUUID();
      seen.runs = 0;
      const answers = await Promise.all(
        Array.from({ length: 6 }, (_, index) => post(path, FORM, { host: index % 2 ? app : neighbour })),
      );
      expect(answers.map(({ status }) => status)).toEqual(Array(6).fill(201));
      expect(new Set(answers.map(({ text }) => text)).size).toBe(1);
      expect(answers.filter(({ headers }) => headers['idempotency-replayed'] === undefined)).toHaveLength(1);
      expect(seen.runs).toBe(1);
    }
    expect(await app.state()).toMatchObject({ orders: 3, records: 3 });
  });

  describe('is replayed from a handler that', () => {
    it('answers with @Res()', async () => {
      const original = await post('response');
      expect([original.status, original.headers['x-own']]).toEqual([202, 'yes']);
      expectReplay(original, await post('response'));
      await expectRefused('response', [file('file', 'other')]);
      expect(seen.runs).toBe(1);
    });

    it.each(['streamed', 'observed'])('gives something to wait for (%s)', async (path) => {
      const original = await post(path);
      expect(original.status).toBe(201);
      expectReplay(original, await post(path));
      await expectRefused(path, [file('file', 'other')]);
      expect(seen.runs).toBe(1);
    });

    it('throws an error under 500, whose writes are undone', async () => {
      const original = await post('refused');
      expect(original.json()).toMatchObject({ message: 'no more of a.txt, run 1' });
      expectReplay(original, await post('refused'));
      await expectRefused('refused', [file('file', 'other')]);
      expect(await app.state()).toMatchObject({ orders: 0, records: 1 });
    });
  });

  it('frees its key when the handler fails', async () => {
    expect((await post('broken')).status).toBe(500);
    expect(await app.state()).toMatchObject({ orders: 0, records: 0 });
    expect((await post('broken')).status).toBe(201);
    expect(await app.state()).toMatchObject({ orders: 1, records: 1 });
  });

  it('ends after maxDuration, which begins when the upload is there', async () => {
    const hanging = deferred();
    gate.promise = hanging.promise;
    const answer = await post('hanging');
    expect(answer.json()).toMatchObject({ code: 'IDEMPOTENCY_MAX_DURATION_EXCEEDED' });
    hanging.resolve();
    expect(await app.state()).toMatchObject({ orders: 0, records: 0 });
    expect((await post('hanging')).status).toBe(201);
  });

  describe('that the handler never saw', () => {
    it('leaves nothing behind over its limit, and the corrected one runs', async () => {
      const tooLarge = await post('limited', [file('file', 'far more than ten bytes')]);
      expect(tooLarge.status).toBe(413);
      expect(tooLarge.headers['idempotency-key']).toBe(key);
      expect(await app.state()).toMatchObject({ orders: 0, records: 0 });
      const corrected = await post('limited', [file('file', 'few')]);
      expect([corrected.status, corrected.headers['idempotency-replayed']]).toEqual([201, undefined]);
      expect(await app.state()).toMatchObject({ orders: 1, records: 1 });
    });

    it('never claims its key over its limit', async () => {
      const held = deferred();
      gate.promise = held.promise;
      const original = post('held');
      await eventually(() => seen.runs === 1);
      // A claim would wait for the one that runs.
      const tooLarge = await post('limited', [file('file', 'far more than ten bytes')]);
      expect(tooLarge.status).toBe(413);
      held.resolve();
      expect((await original).status).toBe(201);
    });

    it('leaves nothing behind when a pipe refuses it', async () => {
      const refused = await post('piped', [field('amount', 'x'), file('file', 'content')]);
      expect(refused.status).toBe(400);
      expect(await app.state()).toMatchObject({ orders: 0, records: 0 });
      const corrected = await post('piped', [field('amount', '1'), file('file', 'content')]);
      expect([corrected.status, corrected.headers['idempotency-replayed']]).toEqual([201, undefined]);
    });

    it.each<[string, Readonly<Record<string, string>>]>([
      ['IDEMPOTENCY_KEY_MALFORMED', { 'Idempotency-Key': '"' }],
      ['IDEMPOTENCY_KEY_TOO_SHORT', { 'Idempotency-Key': '' }],
    ])('is refused before it is stored (%s)', async (code, headers) => {
      const before = await readdir(FOLDER);
      const refusal = await post('disk', FORM, { headers });
      expect(refusal.json()).toMatchObject({ code });
      expect(await readdir(FOLDER)).toEqual(before);
    });

    it('leaves nothing behind when the client goes away in the middle of it', async () => {
      const body = multipartBody(FORM, 'cut');
      const broken = startHttpRequest(`${app.url}/disk-removed`, {
        method: 'POST',
        agent: false,
        headers: {
          'Idempotency-Key': key,
          'Content-Type': 'multipart/form-data; boundary=cut',
          'Content-Length': String(body.length),
        },
      });
      broken.on('error', () => undefined);
      const before = (await readdir(FOLDER)).length;
      broken.write(body.subarray(0, body.length - 12));
      await eventually(async () => (await readdir(FOLDER)).length > before);
      broken.destroy();
      await eventually(() => seen.left === 1);
      expect(await app.state()).toMatchObject({ orders: 0, records: 0 });
      const again = await post('disk-removed');
      expect([again.status, again.headers['idempotency-replayed']]).toEqual([201, undefined]);
    });
  });

  it('runs unprotected without its optional key', async () => {
    for (let run = 0; run < 2; run++) {
      const answer = await postMultipart(`${app.url}/optional`, FORM, {});
      expect([answer.status, answer.headers['idempotency-replayed']]).toEqual([201, undefined]);
    }
    expect(await app.state()).toMatchObject({ orders: 2, records: 0 });
  });

  describe('with interceptors around the one that reads it', () => {
    it('replays what they made of it, without them', async () => {
      const original = await post('surrounded');
      expect(original.json()).toMatchObject({ wrapped: { sizes: [7] } });
      expect(original.headers['x-surrounded']).toBe('by run 0');
      expect(await app.items()).toEqual(['a.txt', 'audit']);
      expectReplay(original, await post('surrounded'));
      await expectRefused('surrounded', [file('file', 'other')]);
      expect([seen.runs, seen.entered, seen.mapped]).toEqual([1, 3, 1]);
      expect(await app.items()).toEqual(['a.txt', 'audit']);
    });

    it.each(['surrounded', 'awaited'])(
      'commits or rolls back what they wrote with the handler (%s)',
      async (path) => {
        const stop = proxy.onClientData((chunk) => (isCommit(chunk) ? 'cut-before' : 'forward'));
        const answer = await post(path, FORM, { host: neighbour });
        stop();
        expect([answer.status, seen.runs, seen.mapped]).toEqual([503, 1, 1]);
        expect(await app.items()).toEqual([]);
        expect((await post(path)).status).toBe(201);
        expect(await app.items()).toEqual(['a.txt', 'audit']);
      },
    );

    it('frees its key when one gives up before it is claimed', async () => {
      const [asked, told] = [deferred(), deferred()];
      const stop = proxy.onClientData(async (chunk): Promise<'forward'> => {
        if (isClaim(chunk)) {
          asked.resolve();
          await told.promise;
        }
        return 'forward';
      });
      const pending = post('impatient', FORM, { host: neighbour });
      await asked.promise;
      impatience.next();
      const answer = await pending;
      expect(answer.json()).toMatchObject({ message: 'too slow' });
      told.resolve();
      stop();
      await neighbour.idle();
      expect(await app.state()).toMatchObject({ orders: 0, records: 0 });
      expect(seen.runs).toBe(0);
      expect((await post('impatient')).status).toBe(201);
      expect(await app.state()).toMatchObject({ orders: 1, records: 1 });
    });
  });

  describe('on disk', () => {
    it('stays there: the library removes nothing that it does not own', async () => {
      const before = (await readdir(FOLDER)).length;
      await post('disk');
      await post('disk');
      expect(await readdir(FOLDER)).toHaveLength(before + 2);
    });

    it('is removed by an interceptor of the application, whatever becomes of the request', async () => {
      const before = (await readdir(FOLDER)).length;
      expect((await post('disk-removed')).status).toBe(201);
      expect((await post('disk-removed')).headers['idempotency-replayed']).toBe('true');
      await expectRefused('disk-removed', [file('file', 'other')]);
      expect(seen.left).toBe(3);
      await eventually(async () => (await readdir(FOLDER)).length === before);
    });
  });
});

describe('an upload that a middleware has read', () => {
  let app: Application;

  /** Reads the body as a parser does that nobody knows, and leaves what it made of it. */
  const unknownParser =
    (left: object) =>
    (request: IncomingMessage, _response: unknown, next: () => void): void => {
      request.resume().once('end', () => next());
      Object.assign(request, left);
    };

  beforeAll(async () => {
    app = await Application.start({
      adapter: 'express',
      controllers: [ReadBeforeController],
      configure: (app) => {
        app.use('/read-before/known', multer().any());
        app.use('/read-before/files', unknownParser({ body: {}, files: { file: { data: Buffer.of(1) } } }));
        app.use('/read-before/fields', unknownParser({ body: { amount: '25' } }));
      },
    });
  });

  beforeEach(() => void Object.assign(seen, { runs: 0, entered: 0, mapped: 0, left: 0 }));

  afterAll(() => app.close());

  const post = (path: string, parts: readonly Part[]): Promise<HttpResponse> =>
    postMultipart(`${app.url}/read-before/${path}`, parts, { 'Idempotency-Key': path });

  it('is compared and replayed before any other interceptor', async () => {
    const original = await post('known', FORM);
    expect(original.json()).toMatchObject({ wrapped: { item: 'a.txt' } });
    expectReplay(original, await post('known', FORM));
    const refusal = await post('known', [field('amount', '25'), file('file', 'c0ntent')]);
    expect(refusal.json()).toMatchObject({ code: 'IDEMPOTENCY_KEY_REUSED' });
    expect([seen.runs, seen.entered]).toEqual([1, 1]);
  });

  it.each(['files', 'fields'])(
    'is refused where it is not known whether files are missing (%s)',
    async (path) => {
      const refusal = await post(path, FORM);
      expect(refusal.status).toBe(415);
      expect(refusal.json()).toMatchObject({
        code: 'IDEMPOTENCY_BODY_NOT_FINGERPRINTABLE',
        detail: expect.stringContaining('fingerprint.body'),
      });
      expect(seen.runs).toBe(0);
    },
  );
});
