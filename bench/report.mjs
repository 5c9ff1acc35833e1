// Writes the tables of the documentation from bench/results/, between the markers `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`:
//
//   node bench/report.mjs                     writes them
//   node bench/report.mjs --check             says where a page has other tables than the results, and fails
//   node bench/report.mjs [--check] FOLDER    does so in another copy of the repository
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

const PAGES = ['docs/performance.md', 'README.md'];
/** What tables are made of where there is a choice. */
const CONNECTIONS = 16;
const REDIS = 'node-idempotency-redis';
/** The bare handler in a second process, which shows the noise. */
const CONTROL = 'bare-again';

/** What the kinds of requests in a growing table are. */
const WORKLOADS = {
  first: 'first, random keys',
  'first-by-time': 'first, keys by time',
  'first-by-time-clients': 'first, keys by time of many clients',
  replay: 'replay of a moment ago',
  'replay-any': 'replay of any record',
};

/** For each marker: the results it is made of, the command that makes them, and the Markdown. */
const PARTS = {
  network: { files: ['network'], command: 'npm run bench -- network', render: ([result]) => network(result) },
  throughput: { files: ['latest'], command: 'npm run bench', render: ([latest]) => throughput(latest) },
  reference: {
    files: ['reference'],
    command: 'npm run bench -- reference',
    render: ([result]) => throughput(result),
  },
  latency: { files: ['latency'], command: 'npm run bench -- latency', render: ([result]) => latency(result) },
  growth: { files: ['growth'], command: 'npm run bench -- growth', render: ([result]) => growth(result) },
  purge: { files: ['purge'], command: 'npm run bench -- purge', render: ([result]) => purge(result) },
  memory: { files: ['memory'], command: 'npm run bench -- memory', render: ([result]) => memory(result) },
  'record-cost': {
    files: ['record-cost'],
    command: 'npm run bench -- record-cost',
    render: ([result]) => recordCost(result),
  },
  summary: {
    files: ['network', 'reference'],
    command: 'npm run bench -- network` and `npm run bench -- reference',
    render: ([distant, near]) => summary(distant, near),
  },
};

const { check, root } = parameters(process.argv.slice(2));
let differing = 0;
for (const page of PAGES) {
  const path = join(root, page);
  const written = await readFile(path, 'utf8');
  const wanted = await withTables(written);
  if (written === wanted) continue;
  differing += 1;
  if (check) console.error(`${page} has other tables than bench/results: run \`npm run bench:report\`.`);
  else await writeFile(path, wanted);
  if (!check) console.log(`${page} was written`);
}
if (check && differing > 0) process.exitCode = 1;

function parameters(given) {
  const folder = given.find((each) => !each.startsWith('-'));
  const unknown = given.find((each) => each.startsWith('-') && each !== '--check');
  if (unknown) throw new Error(`There is no ${unknown}, only --check`);
  return { check: given.includes('--check'), root: folder ?? join(import.meta.dirname, '..') };
}

/** The page with the tables of the results. */
async function withTables(page) {
  let result = page;
  for (const [, name] of page.matchAll(/<!-- bench:([\w-]+) -->/g)) {
    const part = PARTS[name];
    if (!part) throw new Error(`There is no table named ${name}: ${Object.keys(PARTS).join(', ')}`);
    const [open, close] = [`<!-- bench:${name} -->`, `<!-- /bench:${name} -->`];
    const [start, end] = [result.indexOf(open) + open.length, result.indexOf(close)];
    if (end < start) throw new Error(`${open} is not closed by ${close}`);
    result = `${result.slice(0, start)}\n${await markdown(part)}\n${result.slice(end)}`;
  }
  return result;
}

async function markdown({ files, command, render }) {
  const results = await Promise.all(files.map(read));
  return results.includes(undefined) ? `Not measured yet: \`${command}\`.` : render(results);
}

async function read(name) {
  const text = await readFile(join(root, 'bench', 'results', `${name}.json`), 'utf8').catch((error) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
  return text === undefined ? undefined : JSON.parse(text);
}

function throughput({ machine, settings, results }) {
  const nodes = distinct(results.map(({ node }) => node)).filter((node) => node !== 'none');
  const counts = distinct(results.map(({ connections }) => connections)).sort((a, b) => a - b);
  const count = usual(counts);
  const atCount = results.filter(({ connections }) => connections === count);
  // What pgbench reached stands below what it is the ceiling of.
  const main = [...atCount.filter(({ node }) => node === nodes[0]), ...atCount.filter(isCeiling)];
  const { rounds, seconds, pool, seed } = settings;
  return paragraphs(
    told(
      machine,
      `Node.js ${nodes.join(' and ')}; ${rounds} rounds of ${seconds} s each, a pool of ${pool}; seed ${seed}.`,
    ),
    `First requests at ${count} connections, Node.js ${nodes[0]}:`,
    table(
      [
        'adapter',
        'side',
        'requests/s',
        'lowest to highest',
        '× bare',
        'p50 ms',
        'p99 ms',
        'CPU ms app',
        'db',
        'CPU × bare',
      ],
      main
        .filter(({ phase }) => phase === 'first')
        .map((each) => [
          ...[
            adapterOf(each),
            each.side,
            each.rps,
            each.spread.rps.map((rps) => number(Math.round(rps))).join(' – '),
          ],
          ...[
            each.ratio_to_bare,
            each.p50_ms,
            each.p99_ms,
            cpu(each.cpu_app_ms),
            each.cpu_db_ms,
            each.cpu_ratio_to_bare,
          ],
        ]),
    ),
    `Replays at ${count} connections, Node.js ${nodes[0]}, beside first requests of the bare handler and replays of the Redis package:`,
    table(
      ['adapter', 'side', 'requests/s', '× bare', '× Redis', 'p50 ms', 'p99 ms', 'CPU ms app', 'db'],
      main
        .filter(({ phase }) => phase === 'replay')
        .map((each) => [
          ...[adapterOf(each), each.side, each.rps, each.ratio_to_bare, overRedis(each, main)],
          ...[each.p50_ms, each.p99_ms, cpu(each.cpu_app_ms), each.cpu_db_ms],
        ]),
    ),
    ...everywhere(results, nodes, counts),
  );
}

/** One table of first requests and one of replays, with the columns of each distance next to each other. */
function network({ machine, settings, distances, results }) {
  const { rounds, requests, adapter, seed } = settings;
  const lengths = distances.map(({ round_trip_ms: roundTrip }) => roundTrip);
  const sides = distinct(results.map(({ side }) => side));
  const at = (side, roundTrip) =>
    results.find((each) => same(each, { side, round_trip_ms: roundTrip })) ?? {};
  const names = lengths.map((roundTrip) => (roundTrip === 0 ? 'straight' : `${roundTrip} ms`));
  const rows = (those, cells) =>
    those.map((side) => [side, ...lengths.flatMap((roundTrip) => cells(at(side, roundTrip)))]);
  const found = distances.map(
    ({ added_before_ms: before, added_after_ms: after }, index) =>
      `${names[index]} ${number(before)} and ${number(after)} ms`,
  );
  return paragraphs(
    told(
      machine,
      `On ${adapter}, one connection, all sides in turn, ${number(rounds * requests)} requests of each; seed ${seed}.`,
    ),
    'First requests, p50 in milliseconds, and that of the bare handler over it (with the rounds that are farthest apart):',
    table(
      ['side', ...names.flatMap((name) => [name, 'bare ÷ side', 'rounds'])],
      rows(sides, (each) => [
        ...[each.first_p50_ms, each.bare_over_side],
        each.bare_over_side_spread ? range(each.bare_over_side_spread) : null,
      ]),
    ),
    'Replays, p50 in milliseconds, and that of the Redis package over it:',
    table(
      ['side', ...names.flatMap((name) => [name, 'Redis ÷ side'])],
      rows(
        sides.filter((side) => at(side, lengths[0]).replay_p50_ms !== null),
        (each) => [each.replay_p50_ms, each.redis_over_side],
      ),
    ),
    `A bare \`SELECT 1\` took longer than straight, before and after, by: ${found.join('; ')}.`,
  );
}

/** Throughput over that of the bare handler, for each number of connections, and on each Node.js. */
function everywhere(results, nodes, counts) {
  const columns = [
    ...counts.map((connections) => ({ connections, node: nodes[0] })),
    ...nodes.slice(1).map((node) => ({ connections: usual(counts), node })),
  ];
  const sides = results.filter(({ side, node }) => side !== 'bare' && side !== CONTROL && node !== 'none');
  if (columns.length < 2 || sides.length === 0) return [];
  const rows = distinct(sides.map(({ adapter, side, phase }) => JSON.stringify([adapter, side, phase])));
  return [
    '× bare at every number of connections, and with every Node.js:',
    table(
      ['adapter', 'side', 'phase', ...columns.map(({ connections, node }) => `${connections}, ${node}`)],
      rows.map((row) => {
        const [adapter, side, phase] = JSON.parse(row);
        const cells = columns.map((column) => {
          const found = sides.find((each) => same(each, { adapter, side, phase, ...column }));
          return found?.ratio_to_bare ?? null;
        });
        return [adapter, side, phase, ...cells];
      }),
    ),
  ];
}

function overRedis(result, results) {
  const { adapter, node, connections, phase } = result;
  const redis = results.find((each) => same(each, { side: REDIS, adapter, node, connections, phase }));
  return redis ? result.rps / redis.rps : null;
}

function latency({ machine, settings, results }) {
  const { rounds, seconds, seed } = settings;
  const nodes = distinct(results.map(({ node }) => node));
  return paragraphs(
    told(
      machine,
      `Node.js ${nodes.join(' and ')}; one connection, ${rounds} rounds of ${seconds} s each; seed ${seed}.`,
    ),
    table(
      ['Node.js', 'adapter', 'side', 'phase', 'p50 ms', 'p99 ms', 'added at p50', 'added at p99'],
      results.map((each) => [
        ...[each.node, each.adapter, each.side, each.phase],
        ...[each.p50_ms, each.p99_ms, each.added_p50_ms, each.added_p99_ms],
      ]),
    ),
  );
}

function growth({ machine, settings, results, ratios, by_time_over_random: byTime, target }) {
  const { rounds, seconds, connections, side, adapter, seed, clients } = settings;
  const many = clients === undefined ? '' : ` records and random keys of ${number(clients)} clients,`;
  // Older results have the ratios of two workloads, of which replays were those of any record in one table alone.
  if (!Array.isArray(ratios)) return `Not measured yet in this form: \`npm run bench -- growth\`.`;
  return paragraphs(
    told(
      machine,
      `Side \`${side}\` on ${adapter},${many} ${connections} connections, ${rounds} rounds of ${seconds} s each; seed ${seed}.`,
    ),
    table(
      [
        ...['requests', 'live records', 'table and indexes, MB', 'requests/s'],
        ...['p50 ms', 'p99 ms', 'CPU ms app', 'db', 'log, bytes per request'],
      ],
      results.map((each) => [
        ...[WORKLOADS[each.phase], each.records, each.size_mb, each.rps],
        ...[each.p50_ms, each.p99_ms, each.cpu_app_ms, each.cpu_db_ms, each.wal_bytes],
      ]),
    ),
    'Throughput of the full table over that of the nearly empty one in the same round:',
    table(
      ['requests', 'median', 'lowest to highest'],
      ratios.map(({ phase, rps, spread }) => [WORKLOADS[phase], rps, range(spread)]),
    ),
    `In the full table, first requests with keys by time over those with random ones: **${number(byTime.rps)}** ` +
      `(${range(byTime.spread)}). To be reached by first requests with random keys and by replays of a moment ago: ${target}.`,
  );
}

function purge({ machine, settings, results, p99, target }) {
  const { records, rate, side, adapter, naptime } = settings;
  // Older results were compared in another way.
  if (p99?.second === undefined) return `Not measured yet in this form: \`npm run bench -- purge\`.`;
  const last = results.at(-1);
  return paragraphs(
    told(
      machine,
      `Side \`${side}\` on ${adapter}; ${number(records)} expired records, ${rate} requests a second` +
        `${naptime === null ? '' : `; autovacuum_naptime ${naptime} s`}.`,
    ),
    table(
      [
        ...['cycle', 'p50 ms without', 'with purge', 'p99 ms before', 'with purge', 'after', 'with vacuum'],
        ...['purge s', 'deleted per second'],
      ],
      results.map((each) => [
        ...[each.cycle, each.p50_quiet_ms, each.p50_purge_ms, each.p99_before_ms, each.p99_purge_ms],
        ...[each.p99_after_ms, each.p99_vacuum_ms, each.purge_s, each.deleted_per_s],
      ]),
    ),
    `p99 with purge over p99 without, of all requests: ${compared(p99.all)}; of the requests of a second, median of all ` +
      `seconds: ${compared(p99.second)}. To be reached: at most ${target}. Of each cycle: ${range(ends(p99.ratios))}; after over ` +
      `before, both without purge: ${range(ends(p99.quiet_ratios))}.`,
    table(
      [
        ...['cycle', 'records filled', 'left', 'table MB filled', 'left', 'indexes MB filled', 'left'],
        ...[
          'bloat of the table',
          'of the indexes',
          'dead rows left',
          'free in the table, %',
          'vacuumed by',
          'in s',
        ],
      ],
      results.map((each) => [
        ...[each.cycle, each.filled_records, each.left_records, each.filled_table_mb, each.left_table_mb],
        ...[each.filled_index_mb, each.left_index_mb, each.table_bloat, each.index_bloat],
        ...[each.dead_rows, each.free_percent, each.vacuumed_by, each.vacuum_s],
      ]),
    ),
    `Bytes for each record when filled, last cycle over first: table **${number(last.table_bloat, false)}**, indexes ` +
      `**${number(last.index_bloat, false)}**.`,
  );
}

function compared({ ratio, quiet_ms: quiet, purge_ms: purging }) {
  return `**${number(ratio)}** (${number(purging)} over ${number(quiet)} ms)`;
}

function memory({ machine, settings, steps, growth_per_100k: per100k, waiting, target_mb: target }) {
  const { side, adapter, connections, waiting: count } = settings;
  const shown = steps.filter(
    (_, index) => index % Math.ceil(steps.length / 6) === 0 || index === steps.length - 1,
  );
  return paragraphs(
    told(
      machine,
      `Side \`${side}\` on ${adapter}, ${connections} connections; each figure after a garbage collection.`,
    ),
    table(
      ['requests', 'heap MB', 'RSS MB'],
      shown.map(({ requests, heap_mb: heap, rss_mb: rss }) => [requests, heap, rss]),
    ),
    `Growth per 100,000 requests, in the later half: heap ${number(per100k.heap_mb)} MB, RSS ${number(per100k.rss_mb)} MB.`,
    table(
      [`${number(count)} that wait`, 'heap MB', 'RSS MB'],
      [
        ['duplicates', waiting.duplicates],
        ['requests of a handler without this library', waiting.bare],
        ['the difference', waiting.library],
        // Older results have not.
        ...(waiting.connections ? [['connections on which nothing is asked', waiting.connections]] : []),
      ].map(([what, { heap_mb: heap, rss_mb: rss }]) => [what, heap, rss]),
    ),
    `To be reached: no growth, and under ${target} MB.`,
  );
}

function recordCost({ machine, settings, results }) {
  return paragraphs(
    told(machine, `${number(settings.records)} records of each size, whose bodies do not compress.`),
    table(
      ['side', 'body, bytes', 'table, bytes', 'before a vacuum', 'indexes, bytes', 'log, bytes'],
      results.map((each) => [
        ...[each.side, each.response_bytes, each.table_bytes, each.table_bytes_before_vacuum],
        ...[each.index_bytes, each.wal_bytes],
      ]),
    ),
  );
}

function summary({ results: distant }, { machine, results }) {
  const count = usual(distinct(results.map(({ connections }) => connections)));
  const { node } = results.find(({ side }) => side === 'transaction') ?? {};
  const at = { side: 'transaction', adapter: 'express', node, connections: count };
  const [first, replay] = ['first', 'replay'].map((phase) =>
    results.find((each) => same(each, { ...at, phase })),
  );
  const distances = distant
    .filter(({ side, round_trip_ms: roundTrip }) => side === 'transaction' && roundTrip > 0)
    .map(
      (each) =>
        `**${percent(each.bare_over_side)}** of its speed with ${each.round_trip_ms} ms to the database and back`,
    );
  return (
    `Compared with the same handler without it, on Express with Node.js ${node}: a first request has ${distances.join(', ')}. ` +
    `With everything on one machine of ${machine.cores} cores, at ${count} connections, first requests reach ` +
    `**${percent(first?.ratio_to_bare)}** of the bare handler's throughput, and ${number(replay?.rps)} replays a second are answered.`
  );
}

/** What everything was measured on. */
function told({ cpu: model, cores, memory_gb: memoryGb, kernel, postgres, redis }, settings) {
  const durable = `fsync ${postgres.fsync}, synchronous_commit ${postgres.synchronous_commit}`;
  const servers = `PostgreSQL ${postgres.server_version} (${durable})${redis ? `, Redis ${redis}` : ''}`;
  return `${model}, ${cores} cores, ${memoryGb} GB, ${kernel}; ${servers}. ${settings}`;
}

function usual(counts) {
  return counts.includes(CONNECTIONS) ? CONNECTIONS : counts[counts.length >> 1];
}

function ends(values) {
  return [Math.min(...values), Math.max(...values)];
}

function range([lowest, highest]) {
  return `${number(lowest, false)} – ${number(highest, false)}`;
}

function percent(ratio) {
  return ratio === undefined || ratio === null ? '–' : `${Math.round(ratio * 100)}%`;
}

/** pgbench has neither adapter nor Node.js. */
function isCeiling({ adapter }) {
  return adapter === 'none';
}

function adapterOf(result) {
  return isCeiling(result) ? null : result.adapter;
}

/** pgbench has no application. */
function cpu(milliseconds) {
  return milliseconds === 0 ? null : milliseconds;
}

function same(result, wanted) {
  return Object.entries(wanted).every(([name, value]) => result[name] === value);
}

function distinct(values) {
  return [...new Set(values)];
}

function paragraphs(...parts) {
  return `\n${parts.join('\n\n')}\n`;
}

/** In a column of which any figure has digits after the point, all have them. */
function table(head, rows) {
  const columns = head.map((_, column) => rows.map((row) => row[column]));
  const isNumber = columns.map((values) => values.some((value) => typeof value === 'number'));
  const isWhole = columns.map((values) =>
    values.every((value) => typeof value !== 'number' || isInteger(value)),
  );
  const lines = [
    head,
    isNumber.map((right) => (right ? '---:' : '---')),
    ...rows.map((row) => row.map((value, column) => number(value, isWhole[column]))),
  ];
  return lines.map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

/** Two digits after the point are more than the noise lets one tell. */
function number(value, isWhole = isInteger(value)) {
  if (value === undefined || value === null || Number.isNaN(value)) return '–';
  if (typeof value !== 'number') return String(value);
  if (isWhole || Math.abs(value) >= 1000) return Math.round(value).toLocaleString('en');
  return value.toFixed(Math.abs(value) >= 100 ? 1 : 2);
}

function isInteger(value) {
  return Number.isInteger(value) || Math.abs(value) >= 1000;
}
