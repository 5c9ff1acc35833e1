import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { randomUUID } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from '../helpers/conditions.js';
import { startRecipe, writeFiles, type PageFiles, type RunningRecipe } from '../helpers/recipes.js';
import { typeErrors } from '../helpers/type-check.js';

/** Processes and compilers take their time where several tests share a machine. */
const PATIENCE = 120_000;

const CONTENT = 'a scan, byte for byte';

describe.each([
  ['Express', undefined],
  ['Fastify', 'on Fastify'],
])('recipe: uploads on %s', (adapter, variant) => {
  let page: PageFiles;
  let recipe: RunningRecipe;
  let folder: string;
  let key: string;
  const opened: (() => Promise<void>)[] = [];

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'recipe-uploads-'));
    opened.push(() => rm(folder, { recursive: true, force: true }));
    page = await writeFiles('docs/recipes/uploads.md', variant);
    opened.push(() => page.remove());
    // Where the page leaves how it starts to the quick start, that is what starts it.
    recipe = await startRecipe(page, { UPLOADS: folder }, variant === undefined ? ['express'] : []);
    opened.push(() => recipe.close());
  }, PATIENCE);

  beforeEach(async () => {
    key = randomUUID();
    await recipe.database.query('TRUNCATE scans');
    await rm(join(folder, 'kept'), { recursive: true, force: true });
  });

  afterAll(async () => {
    for (const close of opened.reverse()) await close();
  });

  const upload = async (
    content = CONTENT,
    headers: Record<string, string> = { 'Idempotency-Key': key },
  ): Promise<{ status: number; text: string; replayed: string | null }> => {
    const form = new FormData();
    form.set('title', 'Contract');
    form.set('file', new Blob([content], { type: 'application/pdf' }), 'contract.pdf');
    // Each form has a boundary of its own.
    const response = await fetch(`${recipe.urls[0]}/scans`, {
      method: 'POST',
      headers: { 'X-API-Key': 'alice', ...headers },
      body: form,
    });
    const replayed = response.headers.get('idempotency-replayed');
    return { status: response.status, text: await response.text(), replayed };
  };

  const scans = (): Promise<{ path: string | null; content: Buffer | null }[]> =>
    recipe.database.query('SELECT path, content FROM scans');
  const filesIn = (name: string): Promise<string[]> => readdir(join(folder, name)).catch(() => []);
  /** What is left of requests that are over. */
  const expectNothingLeft = (): Promise<unknown> =>
    eventually(async () => (await filesIn('incoming')).length === 0);

  const expectOneScan = async (): Promise<void> => {
    const [scan, ...more] = await scans();
    expect(more).toEqual([]);
    expect(scan?.content ?? (await readFile(scan?.path ?? ''))).toEqual(Buffer.from(CONTENT));
    await expectNothingLeft();
  };

  it(
    'compiles',
    () => {
      expect(page.files).toContain(`${page.folder}/src/scans.controller.ts`);
      expect(typeErrors(page.files)).toEqual([]);
    },
    PATIENCE,
  );

  it('a duplicate is replayed, and its file removed', async () => {
    const first = await upload();
    expect([first.status, first.replayed]).toEqual([201, null]);
    expect(await upload()).toEqual({ ...first, replayed: 'true' });
    await expectOneScan();
    expect(await filesIn('kept')).toHaveLength(adapter === 'Express' ? 1 : 0);
  });

  it('two at once are one scan', async () => {
    const [one, other] = await Promise.all([upload(), upload()]);
    expect([one.status, other.status]).toEqual([201, 201]);
    expect(one.text).toBe(other.text);
    await expectOneScan();
  });

  it('another file under the key is refused, and removed', async () => {
    expect((await upload()).status).toBe(201);
    const other = await upload('another scan');
    expect([other.status, JSON.parse(other.text)]).toMatchObject([422, { code: 'IDEMPOTENCY_KEY_REUSED' }]);
    await expectOneScan();
  });

  it('without a key nothing is stored', async () => {
    expect((await upload(CONTENT, {})).status).toBe(400);
    expect(await scans()).toEqual([]);
    await expectNothingLeft();
  });

  it('what is too large leaves the key free', async () => {
    expect((await upload('x'.repeat(10_000_001))).status).toBe(413);
    expect(await scans()).toEqual([]);
    expect((await upload()).status).toBe(201);
    await expectOneScan();
  });

  it('a handler that failed runs again', async () => {
    await recipe.database.query('ALTER TABLE scans RENAME TO away');
    const failed = await upload();
    await recipe.database.query('ALTER TABLE away RENAME TO scans');
    expect(failed.status).toBe(500);
    expect(await upload()).toMatchObject({ status: 201, replayed: null });
    await expectOneScan();
  });
});
