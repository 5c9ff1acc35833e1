import type { Adapter, TestApp } from '../helpers/application.js';
import { startTracedProcess, type TracedProcess } from '../helpers/application-process.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson, type HttpResponse } from '../helpers/http.js';
import { startProvider, type PaymentProvider } from '../helpers/provider.js';
import { comparableHeaders } from '../helpers/replay.js';
import {
  createEffects,
  faultProgram,
  startFaultApp,
  type FaultAnswer,
  type FaultRoute,
} from './application.js';

/** What a fault run takes place in: a database, a provider, and an application that nothing happens to. */
export interface FaultScene {
  readonly database: TestDatabase;
  readonly provider: PaymentProvider;
  readonly survivor: TestApp;
  /** Starts the same application in a process that is to die. */
  startDoomed(): Promise<TracedProcess>;
  /** How often something took effect for a key. */
  effects(route: FaultRoute, key: string): Promise<number>;
  /** What is wrong with what came of a key, and with the answers to it. */
  violations(route: FaultRoute, key: string, answers: readonly HttpResponse[]): Promise<string[]>;
  close(): Promise<void>;
}

/** Starts a {@link FaultScene}. */
export async function startFaultScene(adapter: Adapter): Promise<FaultScene> {
  const database = await createTestDatabase();
  await createEffects(database);
  const provider = await startProvider();
  const options = { adapter, databaseUrl: database.url, providerUrl: provider.url };
  const survivor = await startFaultApp(options);
  const scene = {
    database,
    provider,
    survivor,
    startDoomed: () => startTracedProcess(faultProgram(options), options),
    effects: (route: FaultRoute, key: string) => countEffects(scene, route, key),
    violations: (route: FaultRoute, key: string, answers: readonly HttpResponse[]) =>
      findViolations(scene, route, key, answers),
    close: async () => {
      await survivor.close();
      await provider.close();
      await database.drop();
    },
  };
  return scene;
}

type Scene = Pick<FaultScene, 'database' | 'provider' | 'survivor'>;

/**
 * In lease mode the charges are counted. The row that goes with a charge may be there once for each attempt: an owner that
 * dies between the COMMIT of its fenced transaction and its completion leaves its row behind, and `'rerun'` says that
 * repeating is harmless. The fence only keeps a stale owner from writing.
 */
async function countEffects({ database, provider }: Scene, route: FaultRoute, key: string): Promise<number> {
  if (route === 'lease') return provider.chargesFor(key);
  return (await nonces(database, key)).length;
}

async function nonces(database: TestDatabase, key: string): Promise<string[]> {
  const rows = await database.query<{ nonce: string }>('SELECT nonce FROM effects WHERE key = $1', [key]);
  return rows.map(({ nonce }) => nonce);
}

async function findViolations(
  scene: Scene,
  route: FaultRoute,
  key: string,
  answers: readonly HttpResponse[],
): Promise<string[]> {
  const duplicate = await postJson(`${scene.survivor.url}/${route}`, {}, { 'Idempotency-Key': key });
  const effects = await countEffects(scene, route, key);
  const recorded = await recordedResponse(scene.database, key);
  const { nonce } = JSON.parse(recorded.text) as Partial<FaultAnswer>;
  const committed = await nonces(scene.database, key);
  const found = [
    effects !== 1 && `${effects} effects`,
    duplicate.headers['idempotency-replayed'] !== 'true' && 'a further duplicate was not replayed',
    !committed.includes(nonce ?? '') && 'the answer tells of an effect that is not there',
    ...[...answers, duplicate].flatMap((answer) => [
      answer.status !== recorded.status && `answered ${answer.status} in place of ${recorded.status}`,
      answer.text !== recorded.text && `answered ${answer.text} in place of ${recorded.text}`,
      lasting(answer) !== lasting(duplicate) && `answered ${lasting(answer)} and then ${lasting(duplicate)}`,
    ]),
  ];
  return found.filter((violation) => violation !== false).map((violation) => `${route} ${key}: ${violation}`);
}

async function recordedResponse(
  database: TestDatabase,
  key: string,
): Promise<{ readonly status: number; readonly text: string }> {
  const [row] = await database.query<{ status: number; body: Buffer }>(
    `SELECT response_status AS status, response_body AS body FROM idempotency_records
      WHERE key = $1 AND status = 'completed'`,
    [key],
  );
  return { status: row?.status ?? 0, text: row?.body.toString('utf8') ?? '{}' };
}

/** The headers that a replay has to have in common with the first answer. */
function lasting(answer: HttpResponse): string {
  const createdAt = answer.headers['idempotency-created-at'];
  const headers = Object.entries({ ...comparableHeaders(answer), 'idempotency-created-at': createdAt });
  return JSON.stringify(headers.sort(([one], [other]) => (one < other ? -1 : 1)));
}
