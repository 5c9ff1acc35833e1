// Installs the packed package into small applications, as users would, and runs them: CommonJS with Nest 11 and TypeORM 0.3, ES
// modules with Nest 12 and TypeORM 1, and a front end that has the client alone.
//
//   node test/package/smoke.mjs [tarball]     without a tarball, the package is packed (and built) first
import assert from 'node:assert/strict';
import { cp, mkdtemp, readdir, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { openServer, query } from './databases.mjs';
import { run, serve } from './process.mjs';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const fixtures = join(root, 'test/package/fixtures');
const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc');
/** Node.js can then load ES modules with require(), and knows the "module-sync" condition. */
const requiresEsModules = Boolean(process.features.require_module);

process.chdir(root);
const work = await mkdtemp(join(tmpdir(), 'package-smoke-'));
let server;
try {
  const tarball = process.argv[2] ? resolve(process.argv[2]) : await pack();
  await checkFrontEnd(tarball);
  server = await openServer();
  for (const fixture of ['nest11-cjs', 'nest12-esm']) {
    await check(fixture, tarball);
  }
} finally {
  await server?.close();
  await rm(work, { recursive: true, force: true });
}

async function pack() {
  await run('npm', ['pack', '--silent', '--pack-destination', work]);
  const { name, version } = createRequire(import.meta.url)(join(root, 'package.json'));
  return join(work, `${name}-${version}.tgz`);
}

async function check(fixture, tarball) {
  const say = (step) => console.log(`${fixture}: ${step}`);
  const folder = join(work, fixture);
  await install(fixture, ['app.ts', 'client.ts', 'identity.mjs'], folder, tarball);
  say('installed the tarball and its peers');
  await run(process.execPath, [tsc, '-p', folder], { cwd: folder });
  say('compiled the application against the published types');
  const { same } = JSON.parse(await run(process.execPath, ['identity.mjs'], { cwd: folder }));
  assert.equal(same, requiresEsModules, 'require() and import share one copy of each class');
  say(same ? 'require() and import give the same classes' : 'this Node.js keeps require() and import apart');
  const ddl = await run('npx', ['--no-install', 'nestjs-pg-idempotency', 'ddl'], { cwd: folder });
  assert.match(ddl, /CREATE TABLE[^;]*idempotency_records/);
  say('npx nestjs-pg-idempotency ddl prints SQL');
  await replaysOnce(folder, fixture.replaceAll('-', '_'));
  say('the second request was a replay, the handler ran once; so it did through the client');
  if (fixture === 'nest11-cjs' && requiresEsModules) {
    await replaysOnce(folder, 'plain_commonjs', ['--no-experimental-require-module']);
    say('the same from the CommonJS build, as before Node.js could require() ES modules');
  }
}

/** Neither Nest nor TypeORM is there: this is how docs/client.md says that a front end installs the client. */
async function checkFrontEnd(tarball) {
  const say = (step) => console.log(`front-end: ${step}`);
  const folder = join(work, 'front-end');
  await install('front-end', ['page.ts', 'load.mjs'], folder, tarball, ['--omit=peer']);
  const installed = (await readdir(join(folder, 'node_modules'))).filter((name) => !name.startsWith('.'));
  assert.deepEqual(installed, ['nestjs-pg-idempotency']);
  say('installed the tarball, and none of its peers');
  await run(process.execPath, [tsc, '-p', folder], { cwd: folder });
  say('compiled a page against the published types, without those of Node.js');
  const modes = requiresEsModules ? [[], ['--no-experimental-require-module']] : [[]];
  for (const nodeOptions of modes) {
    const printed = await run(process.execPath, [...nodeOptions, 'load.mjs'], { cwd: folder });
    const { results, same, whole } = JSON.parse(printed);
    assert.deepEqual(results, Array(2).fill({ status: 204, attempts: 3, keys: 1 }));
    assert.equal(same, requiresEsModules && nodeOptions.length === 0, 'one copy of CallError');
    assert.equal(whole, 'ERR_MODULE_NOT_FOUND', 'the rest of the package needs its peers');
  }
  say('imported and required the client, and made a call by each');
}

async function install(fixture, files, folder, tarball, options = []) {
  await cp(join(fixtures, fixture), folder, { recursive: true });
  for (const file of files) await cp(join(fixtures, file), join(folder, file));
  const quick = ['--prefer-offline', '--no-audit', '--no-fund'];
  await run('npm', ['install', ...quick, ...options, tarball], { cwd: folder });
}

async function replaysOnce(folder, database, nodeOptions = []) {
  const url = await server.create(database);
  await query(
    url,
    `CREATE TABLE rewards (
       id int GENERATED ALWAYS AS IDENTITY, points int, granted_at timestamptz DEFAULT clock_timestamp())`,
  );
  const app = await serve([...nodeOptions, 'out/app.js'], {
    cwd: folder,
    env: { ...process.env, DATABASE_URL: url },
  });
  try {
    const first = await grant(app.url);
    const second = await grant(app.url);
    assert.equal(first.status, 201, first.body);
    assert.equal(first.replayed, null);
    assert.deepEqual(second, { ...first, replayed: 'true' });
    assert.deepEqual(await query(url, 'SELECT points FROM rewards'), [{ points: 50 }]);
    const printed = await run(process.execPath, [...nodeOptions, 'out/client.js', app.url], { cwd: folder });
    assert.deepEqual(JSON.parse(printed), {
      points: [70, 70],
      replayed: [false, true],
      other: 'CALL_KEY_REUSED',
    });
    assert.deepEqual(await query(url, 'SELECT points FROM rewards WHERE points > 50'), [{ points: 70 }]);
  } catch (error) {
    console.error(app.output());
    throw error;
  } finally {
    await app.stop();
  }
}

async function grant(url) {
  const response = await fetch(`${url}/rewards`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', 'Idempotency-Key': 'order-1' },
    body: JSON.stringify({ points: 50 }),
  });
  return {
    status: response.status,
    replayed: response.headers.get('Idempotency-Replayed'),
    body: await response.text(),
  };
}
