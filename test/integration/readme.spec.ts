import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { dirname, join, relative } from 'node:path';
import { runTypeScript, type TypeScriptProcess } from '../helpers/child-process.js';
import { eventually } from '../helpers/conditions.js';
import { createEmptyDatabase, type TestDatabase } from '../helpers/database.js';
import { sendRequest, type HttpResponse } from '../helpers/http.js';
import { typeErrors } from '../helpers/type-check.js';

/** The code blocks of the README that name their file in the first line. */
function filesOf(markdown: string): Map<string, string> {
  const blocks = markdown.matchAll(/```ts\n\/\/ (src\/\S+)\n(.*?)```/gs);
  return new Map([...blocks].map(([, name, code]) => [name!, code!]));
}

/** The request of the README's curl command. */
function requestOf(markdown: string): { path: string; headers: Record<string, string>; body: string } {
  const command = /```sh\ncurl ([^`]*localhost:3000[^`]*)```/.exec(markdown)![1]!.replace(/\\\n/g, ' ');
  const headers = [...command.matchAll(/-H '([^:]+): ([^']+)'/g)].map(([, name, value]) => [name!, value!]);
  const path = /localhost:3000(\/\S+)/.exec(command)![1]!;
  return { path, headers: Object.fromEntries(headers), body: /-d '([^']+)'/.exec(command)![1]! };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

describe('the quick start of the README', () => {
  let readme: string;
  let folder: string;
  let files: string[];
  let database: TestDatabase;
  let application: TypeScriptProcess | undefined;

  beforeAll(async () => {
    readme = await readFile('README.md', 'utf8');
    database = await createEmptyDatabase();
    // Inside the repository, where the packages of the example are found.
    await mkdir('node_modules/.cache', { recursive: true });
    folder = await mkdtemp('node_modules/.cache/quick-start-');
    files = [];
    for (const [name, code] of filesOf(readme)) {
      const file = join(folder, name);
      await mkdir(dirname(file), { recursive: true });
      await writeFile(file, code);
      files.push(file);
    }
  });

  afterAll(async () => {
    await application?.kill();
    await rm(folder, { recursive: true, force: true });
    await database.drop();
  });

  it('compiles', () => {
    expect(files.map((file) => relative(folder, file))).toContain('src/app.module.ts');
    expect(typeErrors(files)).toEqual([]);
  });

  it('runs once and replays', async () => {
    const port = await freePort();
    application = runTypeScript(`await import('./${folder}/src/main.ts'); console.log('listening');`, {
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
