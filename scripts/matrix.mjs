// Runs the tests on the supported versions of PostgreSQL, Node.js, NestJS and TypeORM: every two of them together at
// least once. `npm run test:matrix -- --write` also writes the result to docs/compatibility.md;
// `-- --only 14,20` runs the combinations with those values; what follows a second `--` goes to Jest in place of SPECS, such as
// `test` for all there is. Takes about a minute for each combination.
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { FACTORS, runCell } from './matrix/cell.mjs';
import { pairwise } from './matrix/pairwise.mjs';

const RESULT = 'docs/compatibility.md';
const MARKS = ['<!-- result of npm run test:matrix -->', '<!-- end of the result -->'];

/** What meets the framework, the ORM and the database. The sample application and the long fault runs are left out. */
const SPECS = [
  'test/unit',
  'test/integration/(boot|migrations|pooled|purge|service.spec|store)',
  'test/e2e/(ambient-(c|h|j|n|s)|fingerprint-multipart|handler|lease.spec|lost|one-effect|replay|session)',
];

const { values: options, positionals } = parseArgs({
  options: { write: { type: 'boolean', default: false }, only: { type: 'string' } },
  allowPositionals: true,
});

const jestArguments = positionals.length > 0 ? positionals : SPECS;
const wanted = options.only?.split(',') ?? [];
const rows = pairwise(FACTORS).filter((row) => wanted.every((value) => Object.values(row).includes(value)));
const place = await mkdtemp(join(tmpdir(), 'matrix-'));
console.log(`${rows.length} combinations, in ${place}`);

const results = [];
for (const row of rows) {
  const result = await runCell(row, { place, jestArguments }).catch((error) => ({
    versions: row,
    passed: 0,
    failed: 1,
    failures: [error.message],
  }));
  results.push(result);
  console.log(tableRow(result));
  for (const failure of result.failures) console.log(`  failed: ${failure}`);
}

const table = [header(), ...results.map(tableRow)].join('\n');
console.log(`\n${table}`);
if (options.write) await writeResult(table);
const failed = results.some((result) => result.failed > 0);
// What failed is looked into there.
if (!failed) await rm(place, { recursive: true, force: true });
process.exitCode = failed ? 1 : 0;

function header() {
  const columns = [...Object.keys(FACTORS), 'passed', 'failed'];
  return `| ${columns.join(' | ')} |\n|${' --- |'.repeat(columns.length)}`;
}

function tableRow({ versions, passed, failed }) {
  return `| ${[...Object.keys(FACTORS).map((factor) => versions[factor]), passed, failed].join(' | ')} |`;
}

async function writeResult(table) {
  const [date] = new Date().toISOString().split('T');
  const text = await readFile(RESULT, 'utf8');
  const [start, end] = MARKS.map((mark) => text.indexOf(mark));
  if (start < 0 || end < start) throw new Error(`${RESULT} lacks the marks ${MARKS.join(' and ')}`);
  const result = `${MARKS[0]}\n\nLast run: ${date}.\n\n${table}\n\n`;
  await writeFile(RESULT, text.slice(0, start) + result + text.slice(end));
}
