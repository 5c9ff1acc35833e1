import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import ky from 'ky';
import { endpoint, type CallOptions, type PendingCall } from 'nestjs-pg-idempotency/client';
import { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import ts from 'typescript';
import { createSampleApp } from '../../sample-app/create-sample-app.js';
import { KEY, startSample, type RunningSample } from '../e2e/sample.fixture.js';
import { runTypeScript } from '../helpers/child-process.js';
import { startScriptedServer, type ScriptedServer } from '../helpers/client-server.js';
import { eventually } from '../helpers/conditions.js';
import { createEmptyDatabase } from '../helpers/database.js';
import { writeFiles, type PageFiles } from '../helpers/recipes.js';
import { typeErrors } from '../helpers/type-check.js';

const PAGE = 'docs/client.md';
/** Where the page's API is, in place of which the examples get a server of the test. */
const API = 'https://api.example.com';
/** Processes and compilers take their time where several tests share a machine. */
const PATIENCE = 120_000;
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

/** What a script printed before its end, and what it returned, as JSON keeps it. */
interface Ran {
  readonly lines: readonly string[];
  readonly returned: ReturnType<typeof JSON.parse>;
}

let sample: RunningSample;
const opened: (() => Promise<void>)[] = [];

beforeAll(async () => {
  sample = await startSample('express');
}, PATIENCE);

afterAll(() => sample.close());

afterEach(async () => {
  for (const close of opened.splice(0).reverse()) await close();
});

async function scripted(...script: Parameters<typeof startScriptedServer>): Promise<ScriptedServer> {
  const server = await startScriptedServer(...script);
  opened.push(() => server.close());
  return server;
}

/** A page's files, whose API is at the address. */
async function filesAt(url: string, name = PAGE): Promise<PageFiles> {
  const page = await writeFiles(name);
  opened.push(() => page.remove());
  for (const file of page.files) {
    await writeFile(file, (await readFile(file, 'utf8')).replaceAll(API, url));
  }
  return page;
}

/** Source text that may `await example('name')`, and whose result is printed. */
function program({ folder }: PageFiles, script: string): string {
  return `
    const example = (name) => import('./${folder}/src/' + name + '.ts');
    const returned = await (async () => { ${script} })();
    console.log('returned ' + JSON.stringify(returned ?? null));
  `;
}

async function run(page: PageFiles, script: string, environment: NodeJS.ProcessEnv = {}): Promise<Ran> {
  const running = runTypeScript(program(page, script), environment);
  const lines: string[] = [];
  try {
    for (;;) {
      const line = await running.nextLine();
      if (line.startsWith('returned '))
        return { lines, returned: JSON.parse(line.slice('returned '.length)) };
      lines.push(line);
    }
  } finally {
    await running.kill();
  }
}

async function charges(ref: string): Promise<unknown[]> {
  return (await sample.call('GET', `/charges?ref=${ref}`)).json() as unknown[];
}

/** Files that other examples import, and that do nothing by themselves. */
const IMPORTED = ['outbox.ts', 'support.ts'];

/** What the page says of its examples, by their files. */
const EXAMPLES: Record<string, () => Promise<void>> = {
  'quick-start.ts': async () => {
    const { returned } = await run(
      await filesAt(sample.url),
      `return (await example('quick-start')).result;`,
    );
    expect(returned).toMatchObject({
      status: 201,
      replayed: false,
      attempts: 1,
      createdAt: expect.any(String),
    });
    expect(returned.data).toMatchObject({ amount: 4200, ref: 'inv_88' });
    expect(returned.key).toMatch(UUID);
  },

  'keys.ts': async () => {
    await run(
      await filesAt(sample.url),
      `const { chargeEachTime, chargeInvoice, chargeContent, chargeOf } = await example('keys');
       const clickTwice = (charge, ref) =>
         Promise.all([charge({ body: { amount: 1, ref } }), charge({ body: { ref, amount: 1 } })]);
       await clickTwice(chargeEachTime, 'each');
       await clickTwice(chargeInvoice, 'invoice');
       await clickTwice(chargeContent, 'content');
       await Promise.all([chargeOf(42, 7), chargeOf(42, 7)]);`,
    );
    expect(await charges('each')).toHaveLength(2);
    for (const ref of ['invoice', 'content', 'inv_89']) expect(await charges(ref)).toHaveLength(1);
  },

  'pay.ts': async () => {
    const paid = { status: 201, body: { id: 'ch_1' } };
    const notJson = { status: 201, headers: { 'content-type': 'application/json' }, body: '{"id":' };
    const down = { status: 503 };
    const reused = { status: 422, body: { code: 'IDEMPOTENCY_KEY_REUSED' } };
    const server = await scripted([
      ...[paid, { status: 402 }, notJson, down, down, down],
      ...[{ status: 401 }, paid, reused],
    ]);
    const { returned } = await run(
      await filesAt(server.url),
      `const { pay } = await example('pay');
       const said = [];
       for (let call = 0; call < 4; call += 1) said.push(await pay(4200, 'inv_88'));
       const key = said[3].split(' ').at(-1).slice(0, -1);
       for (const each of [key, key, undefined]) said.push(await pay(4200, 'inv_88', each));
       return said;`,
    );
    const keys = server.requests.map(({ headers }) => headers['idempotency-key']);
    expect(returned).toEqual([
      'Paid: ch_1',
      'Your card was declined.',
      'Paid. We will send you the receipt.',
      `We do not know yet whether you have paid. Ask again with ${String(keys[3])}.`,
      `We do not know yet whether you have paid. Ask again with ${String(keys[3])}.`,
      'Paid: ch_1',
      'You have not paid.',
    ]);
    expect(new Set(keys.slice(3, 8)).size).toBe(1);
    expect(new Set(keys).size).toBe(5);
  },

  'durable-charge.ts': async () => {
    const outbox = await mkdtemp(join(tmpdir(), 'outbox-'));
    opened.push(() => rm(outbox, { recursive: true }));
    const never = new Promise<void>(() => undefined);
    const server = await scripted([
      { after: never },
      { status: 401 },
      { status: 201, body: { id: 'ch_1', status: 'succeeded' } },
    ]);
    const page = await filesAt(server.url);
    const pay = `await (await example('durable-charge')).charge({ body: { amount: 1, ref: 'inv_88' } });`;
    const victim = runTypeScript(program(page, pay), { OUTBOX: outbox });
    await eventually(() => server.requests.length === 1, { timeoutMs: PATIENCE / 2 });
    await victim.kill();
    const [name = ''] = await readdir(outbox);
    const old = {
      key: 'too-old',
      input: { body: { amount: 1, ref: 'inv_0' } },
      savedAt: Date.now() - 86_400_000,
    };
    await writeFile(join(outbox, 'too-old.json'), JSON.stringify(old));

    const resume = (): Promise<Ran> =>
      run(page, `return (await example('durable-charge')).resume();`, { OUTBOX: outbox });
    expect((await resume()).returned).toEqual(['too-old']);
    // Who is not let in has learnt nothing of what the killed process sent.
    expect((await readdir(outbox)).sort()).toEqual([name, 'too-old.json'].sort());
    expect((await resume()).returned).toEqual(['too-old']);
    expect(await readdir(outbox)).toEqual(['too-old.json']);
    const [first, ...later] = server.requests;
    expect(`${String(first?.headers['idempotency-key'])}.json`).toBe(name);
    expect(later).toHaveLength(2);
    for (const { headers, text } of later) {
      expect(headers['idempotency-key']).toBe(first?.headers['idempotency-key']);
      expect(text).toBe(first?.text);
    }
  },

  'observed.ts': async () => {
    const server = await scripted([{ status: 503 }, { cut: 'before' }, { status: 201 }]);
    const { lines } = await run(await filesAt(server.url), `await example('observed');`);
    const line = (attempt: number, what: string, then: string): unknown =>
      expect.stringMatching(
        new RegExp(String.raw`^POST ${server.url}/charges #${attempt}: ${what} after \d+ ms, ${then}$`),
      );
    expect(lines).toEqual([
      line(1, '503', String.raw`retry in \d+ ms`),
      line(2, 'network-failed', String.raw`retry in \d+ ms`),
      line(3, '201', 'return'),
    ]);
  },

  'use-support.ts': async () => {
    const page = await filesAt(sample.url);
    const environment = { SUPPORT_API_KEY: KEY['X-API-Key'] };
    const use = (): Promise<Ran> => run(page, `return (await example('use-support')).tickets;`, environment);
    const { returned: first } = await use();
    const { returned: second } = await use();
    expect(first).toMatchObject([
      { title: 'Need help, please', priority: 'high', tags: ['billing'], status: 'open' },
    ]);
    expect(second).toEqual(first);
    expect(await sample.database.query('SELECT body FROM ticket_messages')).toEqual([{ body: 'Hello?' }]);
  },

  'checked.ts': async () => {
    const page = await filesAt(sample.url);
    const { returned } = await run(
      page,
      `const { status, charge } = await example('checked');
       const invalid = await charge({ body: { amount: -1, ref: '' } }).catch(({ code, effect, issues }) => {
         return { code, effect, issues: issues.length };
       });
       return { status, invalid };`,
    );
    expect(returned).toEqual({
      status: 'succeeded',
      invalid: { code: 'CALL_INPUT_INVALID', effect: 'none', issues: 2 },
    });
    expect(await charges('inv_91')).toHaveLength(1);
    const other = await scripted([{ status: 201, body: { id: 1 } }]);
    const { returned: error } = await run(
      await filesAt(other.url),
      `return example('checked').catch(({ code, effect }) => ({ code, effect }));`,
    );
    expect(error).toEqual({ code: 'CALL_OUTPUT_INVALID', effect: 'done' });
  },

  'secrets.ts': async () => {
    const server = await scripted(() => ({ status: 200 }));
    await run(
      await filesAt(server.url),
      `const { withToken, withKey, withBoth } = await example('secrets');
       for (const call of [withToken, withKey, withBoth]) await call();`,
      { API_TOKEN: 'token', API_KEY: 'key', API_SECRET: 'secret' },
    );
    const [token, key, both] = server.requests.map(({ headers }) => headers);
    expect(token).toMatchObject({ authorization: 'Bearer token' });
    expect(key).toMatchObject({ 'x-api-key': 'key' });
    expect(both).toMatchObject({ 'x-api-key': 'key', 'x-api-secret': 'secret' });
  },

  'upload.ts': async () => {
    const server = await scripted([{ status: 503 }, { status: 201 }]);
    const { returned } = await run(await filesAt(server.url), `return (await example('upload')).status;`);
    expect(returned).toBe(201);
    const [first, second] = server.requests;
    expect(first?.headers['content-type']).toMatch(/^multipart\/form-data; boundary=/);
    expect(first?.text).toContain('filename="contract.pdf"');
    expect(second?.headers['content-type']).toBe(first?.headers['content-type']);
    expect(second?.body).toEqual(first?.body);
  },

  'cors.ts': async () => {
    const { returned: cors } = await run(await filesAt(sample.url), `return (await example('cors')).cors;`);
    const database = await createEmptyDatabase();
    opened.push(() => database.drop());
    const app = await createSampleApp({ databaseUrl: database.url, adapter: 'express', logger: ['error'] });
    opened.push(() => app.close());
    app.enableCors(cors);
    await app.listen(0, '127.0.0.1');
    const sent: string[] = [];
    const charge = endpoint({
      method: 'POST',
      baseUrl: await app.getUrl(),
      path: '/charges',
      idempotency: {},
      fetch: async (url, init) => {
        sent.push(...Object.keys(init.headers));
        return fetch(url, { ...init, headers: { ...init.headers, origin: cors.origin } });
      },
    });
    const { headers } = await charge({ body: { amount: 1, ref: 'cors' } });
    const exposed = headers.get('access-control-expose-headers')?.split(',');
    expect(exposed).toEqual(['Idempotency-Replayed', 'Idempotency-Created-At', 'Retry-After']);
    expect(headers.get('access-control-allow-origin')).toBe(cors.origin);
    const preflight = await fetch(`${await app.getUrl()}/charges`, {
      method: 'OPTIONS',
      headers: { origin: cors.origin, 'access-control-request-method': 'POST' },
    });
    const allowed = preflight.headers.get('access-control-allow-headers')?.toLowerCase().split(',');
    // Accept is one that browsers send anyway.
    expect(allowed).toEqual(expect.arrayContaining(sent.filter((name) => name !== 'accept')));
    expect(sent).toContain('idempotency-key');
  },

  'another-server.ts': async () => {
    const server = await scripted([
      { status: 409, body: { error: { code: 'idempotency_key_in_use' } } },
      { status: 500, headers: { 'Idempotent-Replayed': 'true' }, body: { error: { code: 'broken' } } },
    ]);
    const { returned } = await run(
      await filesAt(server.url),
      `return example('another-server').catch(({ code, effect, attempts }) => ({ code, effect, attempts }));`,
      { PROVIDER_TOKEN: 'sk_test' },
    );
    expect(returned).toEqual({ code: 'CALL_REFUSED', effect: 'unknown', attempts: 2 });
    expect(server.requests[1]).toMatchObject({
      text: 'amount=4200&currency=eur',
      headers: {
        authorization: 'Bearer sk_test',
        'content-type': expect.stringContaining('application/x-www-form-urlencoded'),
      },
    });
  },

  'over-ky.ts': async () => {
    const server = await scripted([{ status: 503 }, { status: 201 }]);
    const { returned } = await run(await filesAt(server.url), `return (await example('over-ky')).attempts;`);
    expect(returned).toBe(2);
    expect(server.requests).toHaveLength(2);
  },
};

describe('the examples of the client’s page', () => {
  it(
    'are files, and compile',
    async () => {
      const markdown = await readFile(PAGE, 'utf8');
      const blocks = [...markdown.matchAll(/```(?:ts|js|typescript|javascript)\n(.*)/g)].map(
        ([, line]) => line,
      );
      const page = await filesAt(API);
      expect(blocks).toEqual(page.files.map((file) => `// ${file.slice(page.folder.length + 1)}`));
      expect(typeErrors(page.files)).toEqual([]);
    },
    PATIENCE,
  );

  it('are all run', async () => {
    const { folder, files } = await filesAt(API);
    const names = files.map((file) => file.slice(`${folder}/src/`.length));
    expect([...Object.keys(EXAMPLES), ...IMPORTED].sort()).toEqual(names.sort());
  });

  it.each(Object.entries(EXAMPLES))('%s does what the page says', (_, holds) => holds(), PATIENCE);
});

describe('the client in the README', () => {
  it(
    'charges once for two runs',
    async () => {
      const page = await filesAt(sample.url, 'README.md');
      const script = `const { data, replayed } = await example('charge'); return { data, replayed };`;
      const { returned: first } = await run(page, script);
      const { returned: second } = await run(page, script);
      expect(first).toMatchObject({
        data: { amount: 4200, ref: 'inv_88', status: 'succeeded' },
        replayed: false,
      });
      expect(second).toEqual({ data: first.data, replayed: true });
    },
    PATIENCE,
  );
});

describe('what the page says of ky as fetch', () => {
  const over = (url: string, calls: string[]): ((input: { body: object }) => Promise<{ attempts: number }>) =>
    endpoint({
      method: 'POST',
      baseUrl: url,
      path: '/charges',
      retry: { attempts: 3, backoff: { base: 1, max: 1 } },
      idempotency: {},
      fetch: (address, init) => {
        calls.push(address);
        return ky(address, { ...init, retry: 0, throwHttpErrors: false, timeout: false });
      },
    });

  it('waits, retries and stops as without it', async () => {
    const server = await scripted([
      { status: 409, body: { code: 'IDEMPOTENCY_IN_PROGRESS' } },
      { status: 503 },
      { cut: 'before' },
      { status: 201, body: { id: 'ch_1' } },
      { status: 500, headers: { 'Idempotency-Replayed': 'true' } },
    ]);
    const calls: string[] = [];
    const charge = over(server.url, calls);
    expect(await charge({ body: { amount: 1 } })).toMatchObject({ attempts: 4, data: { id: 'ch_1' } });
    const requests = server.requests.slice(0, 4);
    expect(new Set(requests.map(({ headers }) => headers['idempotency-key'])).size).toBe(1);
    expect(requests.map(({ text }) => text)).toEqual(Array(4).fill('{"amount":1}'));
    await expect(charge({ body: { amount: 2 } })).rejects.toMatchObject({
      code: 'CALL_REFUSED',
      effect: 'unknown',
    });
    // It sends what it is told to, and nothing on its own account.
    expect(server.requests).toHaveLength(calls.length);
    expect(calls).toHaveLength(5);
  });
});

describe('what the page says of bodies that are saved', () => {
  const form = new FormData();
  form.set('title', 'Contract');

  it.each<[string, object]>([
    ['a form', form],
    ['a blob of JSON', new Blob(['{"a":1}'], { type: 'application/json' })],
    ['bytes', new TextEncoder().encode('bytes')],
    ['a query', new URLSearchParams({ a: '1' })],
    ['a value', { a: [1, null] }],
  ])('%s goes on as the same request', async (_, body) => {
    const server = await scripted([{ status: 400 }, { status: 201 }]);
    const send = endpoint({ method: 'POST', baseUrl: server.url, path: '/documents', idempotency: {} });
    const saved: PendingCall[] = [];
    const options: CallOptions = { saveKey: (call) => void saved.push(call) };
    await expect(send({ body }, options)).rejects.toMatchObject({ code: 'CALL_REFUSED' });
    const [{ key, input } = { key: '', input: {} }] = saved;
    await send(input as { body: unknown }, { idempotencyKey: key });
    const [first, second] = server.requests.map(({ headers, text }) => ({
      text,
      type: headers['content-type'],
      key: headers['idempotency-key'],
    }));
    expect(second).toEqual(first);
  });
});

describe('the comments of the client', () => {
  const INDEX = 'lib/client/index.ts';
  /** Interfaces that somebody writes: their fields need a default, if they may be left out, and an example. */
  const OPTIONS = /Options$|^CallHooks$|^EndpointDeclaration$/;

  const compiler = ts.createProgram([INDEX], {
    module: ts.ModuleKind.NodeNext,
    target: ts.ScriptTarget.ES2022,
  });
  const checker = compiler.getTypeChecker();
  const exported = checker
    .getExportsOfModule(checker.getSymbolAtLocation(compiler.getSourceFile(INDEX)!)!)
    .map((symbol) => (symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol));
  const commentOf = (symbol: ts.Symbol): string =>
    ts.displayPartsToString(symbol.getDocumentationComment(checker));

  /** Those that the interface itself declares, as `Interface.field`. */
  function fieldsOf(symbol: ts.Symbol): [string, ts.Symbol][] {
    const members = [...(symbol.members?.values() ?? [])].filter(
      ({ flags }) => flags & ts.SymbolFlags.Property,
    );
    return members.map((member) => [`${symbol.name}.${member.name}`, member]);
  }

  const interfaces = exported.filter(({ flags }) => flags & ts.SymbolFlags.Interface);

  it('are there for every export', () => {
    expect(exported.map(({ name }) => name)).toEqual(
      expect.arrayContaining(['endpoint', 'CallHooks', 'CallError']),
    );
    expect(exported.filter((symbol) => commentOf(symbol) === '').map(({ name }) => name)).toEqual([]);
  });

  it('are there for every field', () => {
    const fields = interfaces.flatMap(fieldsOf);
    expect(fields.length).toBeGreaterThan(40);
    expect(fields.filter(([, field]) => commentOf(field) === '').map(([name]) => name)).toEqual([]);
  });

  it('say the default of every option, and show one', () => {
    const fields = interfaces.filter(({ name }) => OPTIONS.test(name)).flatMap(fieldsOf);
    expect(fields.length).toBeGreaterThan(25);
    const isOptional = ({ flags }: ts.Symbol): boolean => (flags & ts.SymbolFlags.Optional) !== 0;
    const lacking = fields.filter(
      ([, field]) =>
        (isOptional(field) && !/Default:\s+\S/.test(commentOf(field))) ||
        !field.getJsDocTags(checker).some(({ name }) => name === 'example'),
    );
    expect(lacking.map(([name]) => name)).toEqual([]);
  });
});
