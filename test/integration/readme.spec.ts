import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { readFile } from 'node:fs/promises';
import { runTypeScript, type TypeScriptProcess } from '../helpers/child-process.js';
import { eventually } from '../helpers/conditions.js';
import { createEmptyDatabase, type TestDatabase } from '../helpers/database.js';
import { sendRequest, type HttpResponse } from '../helpers/http.js';
import { freePort, writeFiles, type PageFiles } from '../helpers/recipes.js';
import { typeErrors } from '../helpers/type-check.js';

/** The request of the README's curl command. */
function requestOf(markdown: string): { path: string; headers: Record<string, string>; body: string } {
  const command = /```sh\ncurl ([^`]*localhost:3000[^`]*)```/.exec(markdown)![1]!.replace(/\\\n/g, ' ');
  const headers = [...command.matchAll(/-H '([^:]+): ([^']+)'/g)].map(([, name, value]) => [name!, value!]);
  const path = /localhost:3000(\/\S+)/.exec(command)![1]!;
  return { path, headers: Object.fromEntries(headers), body: /-d '([^']+)'/.exec(command)![1]! };
}

describe('the quick start of the README', () => {
  let readme: string;
  let page: PageFiles;
  let database: TestDatabase;
  let application: TypeScriptProcess | undefined;

  beforeAll(async () => {
    readme = await readFile('README.md', 'utf8');
    database = await createEmptyDatabase();
    page = await writeFiles('README.md');
  });

  afterAll(async () => {
    await application?.kill();
    await page.remove();
    await database.drop();
  });

  it('compiles', () => {
    expect(page.files).toContain(`${page.folder}/src/app.module.ts`);
    expect(typeErrors(page.files)).toEqual([]);
  });

  it('runs once and replays', async () => {
    const port = await freePort();
    application = runTypeScript(`await import('./${page.folder}/src/main.ts'); console.log('listening');`, {
      DATABASE_URL: database.url,
      PORT: String(port),
    });
    const running = application;
    await eventually(async () => (await running.nextLine()) === 'listening');
    const { path, headers, body } = requestOf(readme);
    const send = (): Promise<HttpResponse> =>
      sendRequest(`http://127.0.0.1:${port}${path}`, { method: 'POST', headers, body });
    const first = await send();
    const second = await send();
    expect(first.status).toBe(201);
    expect(second.text).toBe(first.text);
    expect(second.headers['idempotency-replayed']).toBe('true');
    expect(await database.query('SELECT amount FROM payments')).toEqual([{ amount: '25.00' }]);
  });
});
