// Installs the packages of the interop tests, and this library beside them from its packed tarball. Skips what is up to date.
//
//   node test/interop/install.mjs [tarball]     without a tarball, the package is built and packed when it has changed
import { createHash } from 'node:crypto';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { compileApps } from './compile.mjs';

const here = fileURLToPath(new URL('.', import.meta.url));
const root = resolve(here, '../..');
const folders = ['nest11', 'nest12'].map((name) => join(here, name));
/** What the tarball is made from. */
const SOURCES = [
  'package.json',
  'tsconfig.json',
  'tsconfig.esm.json',
  'tsconfig.cjs.json',
  'lib',
  'migrations',
];

for (const folder of folders) {
  const wanted = await digest(root, [join(folder, 'package-lock.json')]);
  await unlessStamped(join(folder, 'node_modules/.interop-packages'), wanted, () =>
    run('npm', ['ci', '--prefer-offline', '--no-audit', '--no-fund'], folder),
  );
}

const given = process.argv[2] && resolve(process.argv[2]);
const library = given ? await digest(root, [given]) : await digest(root, SOURCES);
const stamps = folders.map((folder) => join(folder, 'node_modules/nestjs-pg-idempotency/.interop-library'));
const stale = [];
for (const stamp of stamps) if (!(await isStamped(stamp, library))) stale.push(stamp);
if (stale.length > 0) {
  const work = await mkdtemp(join(tmpdir(), 'interop-'));
  try {
    const tarball = given ?? (await pack(work));
    for (const stamp of stale) await unpack(tarball, resolve(stamp, '..'), stamp);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

await compileApps();

async function pack(work) {
  await run('npm', ['pack', '--silent', '--pack-destination', work], root);
  const [tarball] = await readdir(work);
  return join(work, tarball);
}

async function unpack(tarball, folder, stamp) {
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  await run('tar', ['-xzf', tarball, '-C', folder, '--strip-components=1'], root);
  await writeFile(stamp, library);
}

async function unlessStamped(stamp, value, work) {
  if (await isStamped(stamp, value)) return;
  await work();
  await writeFile(stamp, value);
}

async function isStamped(stamp, value) {
  return existsSync(stamp) && (await readFile(stamp, 'utf8')) === value;
}

/** A hash of files, and of all that is in folders. */
async function digest(base, paths) {
  const hash = createHash('sha256');
  for (const path of paths) {
    const file = resolve(base, path);
    const inside = await readdir(file, { recursive: true, withFileTypes: true }).catch(() => undefined);
    const files = inside
      ? inside
          .filter((entry) => entry.isFile())
          .map((entry) => join(entry.parentPath ?? entry.path, entry.name))
      : [file];
    for (const name of files.sort()) hash.update(name).update(await readFile(name));
  }
  return hash.digest('hex');
}

async function run(command, args, cwd) {
  console.log(`${cwd.slice(root.length + 1) || '.'}: ${command} ${args[0]}`);
  const child = spawn(command, args, { cwd, stdio: ['ignore', 'inherit', 'inherit'] });
  const [code] = await once(child, 'exit');
  if (code !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${code}`);
}
