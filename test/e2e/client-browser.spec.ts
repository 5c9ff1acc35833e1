import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import type { INestApplication } from '@nestjs/common';
import type * as Client from 'nestjs-pg-idempotency/client';
import type { Browser, Page } from 'playwright-core';
import { createSampleApp } from '../../sample-app/create-sample-app.js';
import { ADAPTERS } from '../helpers/application.js';
import { findBrowser } from '../helpers/browser.js';
import type { Charge } from '../helpers/client-charges.js';
import { startBrowserWithNames, startClientSite, type ClientSite } from '../helpers/client-page.js';
import { eventually } from '../helpers/conditions.js';
import { createEmptyDatabase, type TestDatabase } from '../helpers/database.js';
import { startLossyHttp, type LossyHttp, type Mishap, type SeenRequest } from '../helpers/lossy-http.js';

/** What functions that run in the page find there. */
interface PageGlobals {
  readonly client: typeof Client;
  stop?: AbortController;
}

/** What a page is asked to do, as JSON. */
interface Task {
  readonly baseUrl: string;
  readonly ref: string;
  readonly key?: 'fingerprint';
  readonly perAttempt?: string;
  readonly form?: boolean;
  readonly attempts?: number;
}

/** What became of a call. */
interface Told {
  readonly id?: string;
  readonly key?: string | undefined;
  readonly attempts: number;
  readonly replayed?: boolean;
  /** Milliseconds since 1970. */
  readonly createdAt?: number | undefined;
  readonly code?: string;
  readonly effect?: string;
  readonly message?: string;
}

const EXPOSED = ['Idempotency-Replayed', 'Idempotency-Created-At', 'Retry-After'];
const executable = findBrowser();

if (executable === undefined) {
  it('needs a browser, and there is none', () => {
    process.stdout.write(
      'The client was not tested in a browser: install Chromium, or name one with CHROMIUM.\n',
    );
    // In CI it is installed, so that nothing stays untested there.
    expect(process.env['CI']).toBeUndefined();
  });
} else {
  describe.each(ADAPTERS)('the client in a browser, with the API on another origin (%s)', (adapter) => {
    let database: TestDatabase;
    /** The one exposes the headers that tell of idempotency to pages of other origins; the other does not. */
    let telling: INestApplication;
    let silent: INestApplication;
    let site: ClientSite;
    let browser: Browser;
    let page: Page;
    let gateway: LossyHttp;
    let requests: SeenRequest[];
    let mishaps: Mishap[];
    let ref: string;
    const complaints: string[] = [];

    beforeAll(async () => {
      database = await createEmptyDatabase();
      telling = await startSampleForPages(EXPOSED);
      silent = await startSampleForPages([]);
      site = await startClientSite();
      browser = await startBrowserWithNames(executable);
    }, 60_000);

    beforeEach(async () => {
      await database.query('TRUNCATE charges, idempotency_records');
      ref = `inv_${randomUUID()}`;
      gateway = await startGateway(telling);
      complaints.length = 0;
      page = await open(site.secureUrl);
    });

    afterEach(async () => {
      await page.close();
      await gateway.close();
      expect(complaints).toEqual([]);
    });

    afterAll(async () => {
      await browser.close();
      await site.close();
      await telling.close();
      await silent.close();
      await database.drop();
    });

    async function startSampleForPages(exposedHeaders: string[]): Promise<INestApplication> {
      const app = await createSampleApp({ databaseUrl: database.url, adapter, logger: ['error'] });
      app.enableCors({
        origin: true,
        methods: ['GET', 'POST'],
        allowedHeaders: ['Content-Type', 'Idempotency-Key'],
        exposedHeaders,
      });
      return app.listen(0, '127.0.0.1').then(() => app);
    }

    /** Preflights pass: only what the page itself sends counts, and is lost. */
    async function startGateway(app: INestApplication): Promise<LossyHttp> {
      requests = [];
      mishaps = [];
      return startLossyHttp(await app.getUrl(), (request) => {
        if (request.method === 'OPTIONS') return undefined;
        requests.push(request);
        return mishaps.shift();
      });
    }

    async function open(url: string): Promise<Page> {
      const opened = await browser.newPage();
      opened.on('pageerror', (error) => complaints.push(error.message));
      await opened.goto(url);
      await opened.waitForFunction(() => 'client' in globalThis);
      return opened;
    }

    const charge = (task: Partial<Task> = {}): Promise<Told> =>
      page.evaluate(chargeInPage, { baseUrl: gateway.url, ref, ...task });

    const charges = (): Promise<Charge[]> => database.query('SELECT id FROM charges');

    const keys = (): unknown[] => requests.map(({ headers }) => headers['idempotency-key']);

    it('makes a charge', async () => {
      const told = await charge();
      expect(told).toMatchObject({ attempts: 1, replayed: false });
      expect(await charges()).toEqual([{ id: told.id }]);
      expect(keys()).toEqual([told.key]);
      expect(requests[0]!.headers['origin']).toBe(new URL(site.secureUrl).origin);
      expect(JSON.parse(requests[0]!.body.toString())).toEqual({ amount: 4200, ref });
    });

    it.each<Mishap>(['answer-lost', 'answer-cut'])(
      'after a lost answer (%s) there is one charge, and the retry tells of it',
      async (mishap) => {
        mishaps.push(mishap);
        const told = await charge();
        expect(told).toMatchObject({ attempts: 2, replayed: true });
        expect(await charges()).toEqual([{ id: told.id }]);
        expect(keys()).toEqual([told.key, told.key]);
        const [record] = await database.query<{ created_at: Date }>(
          `SELECT date_trunc('second', created_at) AS created_at FROM idempotency_records`,
        );
        expect(told.createdAt).toBe(record!.created_at.getTime());
      },
    );

    it('after an attempt that took too long the next one is answered', async () => {
      mishaps.push('answer-late');
      const told = await charge({ perAttempt: '1s', attempts: 10 });
      expect(told).toMatchObject({ replayed: true });
      expect(told.attempts).toBeGreaterThanOrEqual(2);
      expect(await charges()).toEqual([{ id: told.id }]);
    });

    it('the last attempt that took too long leaves the outcome unknown', async () => {
      mishaps.push('answer-late');
      const told = await charge({ perAttempt: '2s', attempts: 1 });
      expect(told).toMatchObject({ code: 'CALL_TIMED_OUT', effect: 'unknown', attempts: 1 });
      expect(told.message).toContain(`retry with key ${told.key}`);
      await gateway.settled();
      expect(await charges()).toHaveLength(1);
    });

    it('is stopped by its page, which is told that the charge may have been made', async () => {
      mishaps.push('answer-late');
      const told = charge();
      await eventually(async () => (await charges()).length === 1);
      await page.evaluate(() => (globalThis as unknown as PageGlobals).stop!.abort());
      expect(await told).toMatchObject({ code: 'CALL_ABORTED', effect: 'unknown', attempts: 1 });
      await gateway.settled();
      expect(requests).toHaveLength(1);
    });

    it('sends a form again byte for byte', async () => {
      mishaps.push('gateway-before', 'request-lost');
      // The sample application takes no forms.
      const told = await charge({ form: true });
      expect(told).toMatchObject({ code: 'CALL_REFUSED', effect: 'unknown', attempts: 3 });
      const [first, ...others] = requests;
      expect(first!.headers['content-type']).toMatch(/^multipart\/form-data; boundary=/);
      expect(first!.body.toString()).toContain(ref);
      for (const { headers, body } of others) {
        expect(headers['content-type']).toBe(first!.headers['content-type']);
        expect(body).toEqual(first!.body);
      }
      expect(new Set(keys())).toEqual(new Set([told.key]));
    });

    it('where the API does not expose its headers, a replay is safe, and not told of', async () => {
      await gateway.close();
      gateway = await startGateway(silent);
      mishaps.push('answer-lost');
      const told = await charge();
      expect(told).toMatchObject({ attempts: 2, replayed: false });
      expect(told.createdAt).toBeUndefined();
      expect(await charges()).toEqual([{ id: told.id }]);
    });

    it('fingerprints a body as Node.js does', async () => {
      const first = await charge({ key: 'fingerprint' });
      const again = await charge({ key: 'fingerprint' });
      expect(first.key).toMatch(/^[0-9a-f]{64}$/);
      expect(again).toMatchObject({ id: first.id, key: first.key, replayed: true });
      const { bodyFingerprintKey, endpoint } = await import('nestjs-pg-idempotency/client');
      const here = endpoint({
        method: 'POST',
        baseUrl: gateway.url,
        path: '/charges',
        idempotency: { key: bodyFingerprintKey() },
      });
      expect(await here({ body: { ref, amount: 4200 } })).toMatchObject({ key: first.key, replayed: true });
      expect(await charges()).toHaveLength(1);
    });

    describe('on plain http:, where a page has no crypto.randomUUID and no crypto.subtle', () => {
      beforeEach(async () => {
        await page.goto(site.plainUrl);
        await page.waitForFunction(() => 'client' in globalThis);
        const has = await page.evaluate(() => ['randomUUID' in crypto, 'subtle' in crypto]);
        expect(has).toEqual([false, false]);
      });

      it('the default key is a random UUID nevertheless', async () => {
        mishaps.push('answer-lost');
        const first = await charge();
        const second = await charge();
        expect(first).toMatchObject({ attempts: 2, replayed: true });
        expect(second).toMatchObject({ attempts: 1, replayed: false });
        for (const { key } of [first, second]) {
          expect(key).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
        }
        expect(first.key).not.toBe(second.key);
        expect(await charges()).toHaveLength(2);
      });

      it('a fingerprint fails before anything is sent, and says why', async () => {
        const told = await charge({ key: 'fingerprint' });
        expect(told).toMatchObject({ code: 'CALL_KEY_INVALID', effect: 'none', attempts: 0 });
        expect(told.message).toContain('fingerprints need a secure context: https: or localhost');
        expect(requests).toEqual([]);
        expect(await charges()).toEqual([]);
      });
    });
  });
}

/** Runs in the page: it knows nothing but its task and the page's globals. */
async function chargeInPage({ baseUrl, ref, key, perAttempt, form, attempts }: Task): Promise<Told> {
  const globals = globalThis as unknown as PageGlobals;
  const { endpoint, bodyFingerprintKey, CallError, unchecked } = globals.client;
  globals.stop = new AbortController();
  const call = endpoint({
    method: 'POST',
    baseUrl,
    path: '/charges',
    output: unchecked<{ id: string }>(),
    retry: { attempts: attempts ?? 3, backoff: { base: '5ms' } },
    timeout: perAttempt === undefined ? {} : { perAttempt },
    idempotency: key === 'fingerprint' ? { key: bodyFingerprintKey() } : {},
  });
  const data = new FormData();
  data.append('ref', ref);
  try {
    const body = form ? data : { amount: 4200, ref };
    const result = await call({ body }, { signal: globals.stop.signal });
    const { attempts: taken, replayed, createdAt } = result;
    return {
      id: result.data.id,
      key: result.key,
      attempts: taken,
      replayed,
      createdAt: createdAt?.getTime(),
    };
  } catch (error) {
    if (!(error instanceof CallError)) throw error;
    const { code, effect, message } = error;
    return { code, effect, message, key: error.key, attempts: error.attempts };
  }
}
