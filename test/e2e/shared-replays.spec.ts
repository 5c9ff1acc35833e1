import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { ADAPTERS, Application } from '../helpers/application.js';
import { eventually } from '../helpers/conditions.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson, type HttpResponse } from '../helpers/http.js';
import { createShop } from '../helpers/shop.js';
import { holdNext, startDatabaseProxy, type TcpProxy } from '../helpers/tcp-proxy.js';
import { countWire, type WireCounter } from '../helpers/wire-count.js';

const REQUESTS = 24;
/**
 * One that is held back, and some more, as those that have arrived are not all as far on their way, and do not wait for ever.
 * Alone, each would need one.
 */
const FEW = REQUESTS / 2;

const ROUTES = { lease: { mode: 'lease' }, other: {} } as const;
const NAMES = ['run', 'lease', 'other'] as const;

describe.each(ADAPTERS)('replays that arrive together (%s)', (adapter) => {
  let database: TestDatabase;
  let proxy: TcpProxy;
  let wire: WireCounter;
  let app: Application;

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
    proxy = await startDatabaseProxy(database.url);
    wire = countWire(proxy);
    const databaseUrl = proxy.url(database.url);
    app = await Application.start({ database, adapter, routes: ROUTES, databaseUrl });
  });

  afterAll(async () => {
    await close();
    await proxy.close();
    await database.drop();
  });

  let closed: Promise<void> | undefined;
  const close = (): Promise<void> => (closed ??= app.close());

  /** Whose key some share, on routes of their own. */
  const requests = Array.from({ length: REQUESTS }, (_, index) => ({
    route: NAMES[index % NAMES.length]!,
    key: `key-${Math.floor(index / NAMES.length)}`,
  }));

  const first = (prefix: string): Promise<HttpResponse[]> =>
    Promise.all(
      requests.map(({ route, key }, index) =>
        app.run(({ respondWith }) => (respondWith(index % 2 ? 200 : 202), `${prefix} ${index} – ü`), {
          route,
          key: prefix + key,
        }),
      ),
    );

  /** Resolves when all that are sent from now on have been read, and are looked up next. */
  const allArrived = async (): Promise<void> => {
    const before = app.arrived;
    await eventually(() => app.arrived === before + REQUESTS);
    await new Promise((resolve) => setImmediate(resolve));
  };

  const again = ({ route, key }: (typeof requests)[number], body: unknown = {}): Promise<HttpResponse> =>
    postJson(`${app.url}/${route}`, body, { 'Idempotency-Key': key });

  const seen = ({ status, body }: HttpResponse): unknown => ({ status, body });

  it('are answered by few statements, each with its own answer', async () => {
    const originals = await first('few-');
    await app.idle();
    wire.take();
    const { held, letGo } = holdNext(proxy);
    const arrived = allArrived();
    const replays = requests.map(({ route, key }) => again({ route, key: `few-${key}` }));
    await Promise.all([held, arrived]);
    letGo();
    const answers = await Promise.all(replays);
    expect(answers.map(seen)).toEqual(originals.map(seen));
    expect(answers.map(({ headers }) => headers['idempotency-replayed'])).toEqual(requests.map(() => 'true'));
    await app.idle();
    const { roundTrips, commits } = wire.take();
    expect(roundTrips).toBeLessThanOrEqual(FEW);
    // Each is a transaction of its own, which reads only.
    expect(commits).toBe(roundTrips);
  });

  it('are refused each by itself where their requests are different ones', async () => {
    const originals = await first('mixed-');
    const isOther = (index: number): boolean => index % 4 === 0;
    const answers = await Promise.all(
      requests.map(({ route, key }, index) =>
        again({ route, key: `mixed-${key}` }, isOther(index) ? { other: index } : {}),
      ),
    );
    for (const [index, answer] of answers.entries()) {
      if (isOther(index)) {
        expect({ ...answer, ...(answer.json() as object) }).toMatchObject({
          status: 422,
          code: 'IDEMPOTENCY_KEY_REUSED',
        });
      } else expect(seen(answer)).toEqual(seen(originals[index]!));
    }
  });

  it('are answered when the connection they share is lost', async () => {
    const originals = await first('lost-');
    await app.idle();
    let chunks = 0;
    const stop = proxy.onClientData(() => (chunks++ === 0 ? 'cut-before' : 'forward'));
    const answers = await Promise.all(requests.map(({ route, key }) => again({ route, key: `lost-${key}` })));
    stop();
    expect(chunks).toBeGreaterThan(1);
    expect(answers.map(seen)).toEqual(originals.map(seen));
    await app.idle();
  });

  it('leave nothing behind when the application ends', async () => {
    const originals = await first('end-');
    const [one] = proxy.connections();
    expect(one).toBeDefined();
    const replays = requests.map(({ route, key }) => again({ route, key: `end-${key}` }));
    await allArrived();
    await close();
    // Who came too late is told so.
    const ends = await Promise.all(replays);
    for (const [index, end] of ends.entries()) {
      if (end.status !== 503) expect(seen(end)).toEqual(seen(originals[index]!));
    }
    await eventually(() => proxy.connections().length === 0);
  });
});
