import { spawn } from 'node:child_process';
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { mutants } from './statement-mutants.mjs';

/*
 * Runs the tests against every mutant of the SQL, and prints which were noticed:
 *
 *   node test/mutation/statements.mjs [part of a name …]
 *
 * It works on a copy, because what tests start in processes of their own has to be mutated as well.
 */

const REPOSITORY = join(import.meta.dirname, '..', '..');
const COPIED = [
  'lib',
  'migrations',
  'sample-app',
  'test',
  'package.json',
  'jest.config.js',
  'jest.mutation.config.js',
];
/** Longer than the tests below take together. */
const PATIENCE = 900_000;

/** These ask the statements themselves, and take seconds. */
const [CLAIMS, TRANSACTIONS, OWNERS] = ['claim', 'transaction', 'owner'].map(
  (of) => `integration/${of}-statements`,
);
const DIRECT = [CLAIMS, TRANSACTIONS, OWNERS];
const FIRST = {
  ...{ claim: CLAIMS, takeOver: CLAIMS, lock: TRANSACTIONS, look: TRANSACTIONS, lookForAll: TRANSACTIONS },
  ...{ limits: TRANSACTIONS, record: TRANSACTIONS, recordOverExpired: TRANSACTIONS },
  ...{
    recordOverLapsed: TRANSACTIONS,
    isOurs: TRANSACTIONS,
    wroteOne: TRANSACTIONS,
    TAKE_ROLE: TRANSACTIONS,
  },
  ...{
    RESUME_ROLE: TRANSACTIONS,
    RECORDED: TRANSACTIONS,
    REMAINING: TRANSACTIONS,
    micros: TRANSACTIONS,
    inCatalog: TRANSACTIONS,
  },
};
/** The likeliest judge first. */
const directSpecs = ({ within }) => [...new Set([FIRST[within] ?? OWNERS, ...DIRECT])];
const TRANSACTION = ['e2e/one-effect', 'e2e/identity', 'e2e/expiry', 'e2e/session-settings', 'e2e/waiting'];
const LEASE = [
  'e2e/lease',
  'integration/take-over',
  'e2e/lease-endings',
  'e2e/fence',
  'faults/lost-acknowledgement',
];
const SLOW = ['faults/paused-owner', 'faults/dead-owner', 'e2e/lease-signal'];
const ADMIN = ['integration/service', 'integration/purge'];
const RECORD = [...TRANSACTION, 'integration/store-pieces', 'integration/service', 'faults/two-releases'];
const PURGE = ['integration/purge', 'e2e/expiry'];
const BY_STATEMENT = {
  claim: [...LEASE, 'faults/dead-owner'],
  lock: [...TRANSACTION, 'faults/vanished-host'],
  look: TRANSACTION,
  lookForAll: TRANSACTION,
  record: RECORD,
  recordOverExpired: RECORD,
  recordOverLapsed: RECORD,
  isOurs: RECORD,
  wroteOne: RECORD,
  TAKE_ROLE: RECORD,
  RESUME_ROLE: RECORD,
  limits: [...TRANSACTION, 'faults/vanished-host', ...LEASE],
  takeOver: ['integration/take-over', 'e2e/expiry', ...LEASE, ...SLOW, ...ADMIN],
  releaseRecord: ADMIN,
  settleRecord: ADMIN,
  purge: PURGE,
  purgePartitioned: PURGE,
  HAS_EXPIRED: PURGE,
  PURGED: PURGE,
};
/** Those of whole applications, for what the direct ones did not notice. */
const applicationSpecs = ({ within }) => [...new Set(BY_STATEMENT[within] ?? [...LEASE, ...SLOW, ...ADMIN])];

/** The text of one declaration of the source, and where it is. */
function declaration(source, name) {
  const start = source.search(new RegExp(`^(?:export )?(?:function|const) ${name}\\b`, 'm'));
  if (start < 0) throw new Error(`There is no ${name}`);
  const end = source.slice(start).search(/^\}$|;$\n\n|;$\n(?=export|const)/m);
  return { start, text: end < 0 ? source.slice(start) : source.slice(start, start + end) };
}

/** The source with that one fault. */
function mutated(source, { within, name, from, to, nth = 1 }) {
  const { start, text } = declaration(source, within);
  let at = -1;
  for (let count = 0; count < nth; count++) {
    at = text.indexOf(from, at + 1);
    if (at < 0) throw new Error(`${within} (${name}): there is no ${JSON.stringify(from)} number ${nth}`);
  }
  return (
    source.slice(0, start) +
    text.slice(0, at) +
    to +
    text.slice(at + from.length) +
    source.slice(start + text.length)
  );
}

/** Resolves with the first file that failed, or with undefined. */
async function judge(copy, specs) {
  const files = specs.map((spec) => `test/${spec}.spec.ts`);
  for (const file of files) {
    const jest = spawn(
      process.execPath,
      [
        '--experimental-vm-modules',
        'node_modules/jest/bin/jest.js',
        '-c',
        'jest.mutation.config.js',
        '-i',
        '--silent',
        `--testMatch=<rootDir>/${file}`,
      ],
      { cwd: copy, stdio: 'ignore', timeout: PATIENCE, killSignal: 'SIGKILL' },
    );
    const code = await new Promise((resolve) => jest.once('exit', resolve));
    if (code !== 0) return file;
  }
  return undefined;
}

async function main(parts) {
  const copy = await mkdtemp(join(tmpdir(), 'statement-mutants-'));
  try {
    for (const name of COPIED) await cp(join(REPOSITORY, name), join(copy, name), { recursive: true });
    await symlink(join(REPOSITORY, 'node_modules'), join(copy, 'node_modules'));
    const chosen = mutants.filter(
      (mutant) => parts.length === 0 || parts.some((part) => title(mutant).includes(part)),
    );
    let survivors = await survivorsOf(copy, chosen, directSpecs);
    if (!process.env.DIRECT_ONLY) survivors = await survivorsOf(copy, survivors, applicationSpecs);
    print(chosen, survivors);
  } finally {
    await rm(copy, { recursive: true, force: true });
  }
}

async function survivorsOf(copy, mutants, specsOf) {
  const path = join(copy, 'lib', 'store', 'sql.ts');
  const source = await readFile(join(REPOSITORY, 'lib', 'store', 'sql.ts'), 'utf8');
  const sources = mutants.map((mutant) => mutated(source, mutant));
  await writeFile(path, source);
  const broken = await judge(copy, [...new Set(mutants.flatMap(specsOf))]);
  if (broken) throw new Error(`${broken} fails without any mutant`);
  const survivors = [];
  for (const [index, mutant] of mutants.entries()) {
    await writeFile(path, sources[index]);
    const file = await judge(copy, specsOf(mutant));
    if (!file) survivors.push(mutant);
    console.log(`${file ? 'killed  ' : 'survived'} ${title(mutant)}${file ? ` (${file})` : ''}`);
  }
  return survivors;
}

function title({ within, name }) {
  return `${within}: ${name}`;
}

/** Fails for a survivor that nobody has accounted for. */
function print(chosen, survivors) {
  const killed = chosen.length - survivors.length;
  console.log(
    `${killed} of ${chosen.length} mutants of the SQL were killed (${((100 * killed) / chosen.length).toFixed(1)} %)`,
  );
  const unexplained = survivors.filter(({ equivalent }) => !equivalent);
  for (const { equivalent, ...mutant } of survivors)
    console.log(`- ${title(mutant)}: ${equivalent ?? 'NOT EXPLAINED'}`);
  if (unexplained.length > 0) process.exitCode = 1;
}

await main(process.argv.slice(2));
