// Bundles `nestjs-pg-idempotency/client` as a front-end project would, and fails when it is larger than the documentation says
// or brings anything along: a module of Node.js, a package, or another part of this library. Needs a build.
//
//   node scripts/check-client-size.mjs [entry point]
import { build } from 'esbuild';
import { readFile } from 'node:fs/promises';
import { argv, exit } from 'node:process';
import { dirname, relative, resolve } from 'node:path';
import { gzipSync } from 'node:zlib';

/** Minified and compressed with gzip, in kilobytes of 1000 bytes. The pages that state it are checked against it. */
const LIMIT_KB = 9;
const PAGES = ['README.md', 'docs/client.md'];

const entry = resolve(argv[2] ?? 'dist/esm/lib/client/index.js');
const everything = await bundle('export *');
const endpointAlone = await bundle('export { endpoint }');

console.log(`client: ${describe(everything)}; the limit is ${LIMIT_KB} kB`);
console.log(`client, where endpoint() alone is imported: ${describe(endpointAlone)}`);

const problems = [...everything.foreign.map((module) => `The client imports ${module}.`)];
if (everything.compressed > LIMIT_KB * 1_000) {
  problems.push(`The client is larger than ${LIMIT_KB} kB.`);
}
for (const page of PAGES) {
  if (!(await readFile(page, 'utf8')).includes(`${LIMIT_KB} kB`)) {
    problems.push(`${page} does not state the limit of ${LIMIT_KB} kB.`);
  }
}
if (problems.length > 0) {
  console.error(problems.join('\n'));
  exit(1);
}

async function bundle(what) {
  const { outputFiles, metafile } = await build({
    stdin: {
      contents: `${what} from ${JSON.stringify(entry)};`,
      resolveDir: dirname(entry),
      sourcefile: 'stdin',
    },
    bundle: true,
    minify: true,
    format: 'esm',
    platform: 'neutral',
    // Left as imports, so that they can be named.
    packages: 'external',
    metafile: true,
    write: false,
  });
  const [output] = Object.values(metafile.outputs);
  const outside = Object.keys(metafile.inputs)
    .filter((file) => file !== 'stdin')
    .filter((file) => relative(dirname(entry), resolve(file)).startsWith('..'));
  return {
    minified: outputFiles[0].contents.length,
    compressed: gzipSync(outputFiles[0].contents, { level: 9 }).length,
    foreign: [...output.imports.map(({ path }) => path), ...outside],
  };
}

function describe({ minified, compressed }) {
  return `${kilobytes(minified)} minified, ${kilobytes(compressed)} compressed`;
}

function kilobytes(bytes) {
  return `${(bytes / 1_000).toFixed(1)} kB`;
}
