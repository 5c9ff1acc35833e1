import type { INestApplication } from '@nestjs/common';
import { createSampleApp } from '../../sample-app/create-sample-app.js';
import type { AdapterName } from '../../sample-app/settings.js';
import { createEmptyDatabase, type TestDatabase } from '../helpers/database.js';
import { sendRequest, type HttpResponse } from '../helpers/http.js';

/** API keys of the two seeded clients, for the APIs that want nothing else. */
export const KEY = { 'X-API-Key': 'sk_live_abc123def456' };
export const OTHER_KEY = { 'X-API-Key': 'sk_live_zyx987wvu654' };

/** Any UUID, as PostgreSQL writes it. */
export const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
/** `2026-01-21T10:30:00Z` */
export const SECOND = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/;
/** `2026-01-21T10:30:00.000Z` */
export const MILLISECOND = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

/** The sample application on a database of its own, called by a client that knows nothing of its implementation. */
export interface RunningSample {
  readonly app: INestApplication;
  readonly database: TestDatabase;
  readonly url: string;
  /** Sends JSON where there is a body. */
  call(method: string, path: string, body?: unknown, headers?: object): Promise<HttpResponse>;
  close(): Promise<void>;
}

/** Starts a {@link RunningSample}, which brings all tables itself. */
export async function startSample(adapter: AdapterName): Promise<RunningSample> {
  const database = await createEmptyDatabase();
  const app = await createSampleApp({ databaseUrl: database.url, adapter, logger: ['error'] });
  await app.listen(0, '127.0.0.1');
  const url = await app.getUrl();
  return {
    app,
    database,
    url,
    call: (method, path, body, headers = {}) =>
      sendRequest(`${url}${path}`, {
        method,
        headers: { ...headers, ...(body === undefined ? {} : { 'Content-Type': 'application/json' }) },
        body: body === undefined ? undefined : JSON.stringify(body),
      }),
    close: async () => {
      await app.close();
      await database.drop();
    },
  };
}

/** Status and body, for comparisons of whole answers. */
export function answerOf({ status, text }: HttpResponse): { status: number; text: string } {
  return { status, text };
}
