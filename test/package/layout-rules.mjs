// Proves that each layout rule bites: plants one violation per rule in a temporary tree, lets
// dependency-cruiser look at it, and compares what it reports with what was planted.
import { mkdir, mkdtemp, realpath, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { cruise } from 'dependency-cruiser';
import extractTsConfig from 'dependency-cruiser/config-utl/extract-ts-config';

const { forbidden, options } = createRequire(import.meta.url)('../../.dependency-cruiser.cjs');

/** Files that obey every rule. The planted violations import them. */
const innocent = {
  'lib/index.ts': `export { Module } from './idempotency.module.js';`,
  'lib/idempotency.module.ts': `
    import { Interceptor } from './http/interceptor.js';
    import { Host } from './join/typeorm/host.js';
    import { Store } from './store/store.js';
    export class Module { parts = [Interceptor, Host, Store]; }`,
  'lib/idempotency.options.ts': `export interface Options { ttl: number } export const defaults = { ttl: 1 };`,
  'lib/core/engine.ts': `import { createHash } from 'node:crypto'; export const engine = createHash;`,
  // Half of the planted cycle: a cycle is reported once, at the file that is seen first.
  'lib/core/hen.ts': `import { egg } from './egg.js'; export const hen = () => egg;`,
  'lib/http/interceptor.ts': `
    import 'framework';
    import type { Options } from '../idempotency.options.js';
    import { engine } from '../core/engine.js';
    export class Interceptor { engine = engine; options?: Options; }`,
  'lib/join/port.ts': `import { engine } from '../core/engine.js'; export interface Port { engine: typeof engine }`,
  'lib/join/typeorm/host.ts': `
    import 'typeorm';
    import type { Port } from '../port.js';
    export class Host { port?: Port; }`,
  'lib/store/store.ts': `
    import { engine } from '../core/engine.js';
    import type { Port } from '../join/port.js';
    export class Store { engine = engine; port?: Port; }`,
  'lib/client/index.ts': `import { retry } from './retry.js'; export const client = retry;`,
  'lib/client/retry.ts': `export const retry = 1;`,
  'migrations/index.ts': `import 'typeorm'; export const migrations = [];`,
  'sample-app/main.ts': `
    import { Module } from 'nestjs-pg-idempotency';
    import { migrations } from 'nestjs-pg-idempotency/migrations';
    export const main = [Module, migrations];`,
  'test/helpers/fake.ts': `export const fake = 1;`,
  'package.json': JSON.stringify({
    name: 'nestjs-pg-idempotency',
    type: 'module',
    peerDependencies: { framework: '1', typeorm: '1' },
    devDependencies: { framework: '1', typeorm: '1', 'test-tool': '1' },
  }),
  'tsconfig.json': JSON.stringify({
    compilerOptions: {
      module: 'NodeNext',
      paths: {
        'nestjs-pg-idempotency': ['./lib/index.ts'],
        'nestjs-pg-idempotency/migrations': ['./migrations/index.ts'],
      },
    },
  }),
  ...stubPackage('framework'),
  ...stubPackage('typeorm'),
  ...stubPackage('test-tool'),
  ...stubPackage('undeclared'),
};

/** Violations by the rule that has to notice them: file and content. */
const planted = {
  'no-cycles': [['lib/core/egg.ts', `import { hen } from './hen.js'; export const egg = () => hen;`]],
  'no-unresolved': [['test/unresolved.ts', `import './nowhere.js';`]],
  'core-stands-alone': [
    ['lib/core/imports-framework.ts', `import 'framework';`],
    [
      'lib/core/imports-http.ts',
      `import type { Interceptor } from '../http/interceptor.js'; export type I = Interceptor;`,
    ],
    [
      'lib/core/imports-options.ts',
      `import type { Options } from '../idempotency.options.js'; export type O = Options;`,
    ],
  ],
  'store-stands-on-a-pool': [
    ['lib/store/imports-http.ts', `import '../http/interceptor.js';`],
    ['lib/store/imports-typeorm.ts', `import 'typeorm';`],
    ['lib/store/imports-host.ts', `import '../join/typeorm/host.js';`],
  ],
  'join-knows-no-store': [['lib/join/typeorm/imports-store.ts', `import '../../store/store.js';`]],
  'join-knows-its-library-in-one-folder': [
    ['lib/join/imports-typeorm.ts', `import type { Stub } from 'typeorm'; export type S = Stub;`],
    ['lib/join/imports-host.ts', `import './typeorm/host.js';`],
  ],
  'http-knows-no-store': [
    ['lib/http/imports-store.ts', `import '../store/store.js';`],
    [
      'lib/http/imports-store-type.ts',
      `import type { Store } from '../store/store.js'; export type S = Store;`,
    ],
    ['lib/http/imports-typeorm.ts', `import 'typeorm';`],
    ['lib/transports/http/imports-store.ts', `import '../../store/store.js';`],
  ],
  'adapters-know-no-module': [['lib/http/imports-module.ts', `import '../idempotency.module.js';`]],
  'options-only-as-types': [
    [
      'lib/store/imports-defaults.ts',
      `import { defaults } from '../idempotency.options.js'; export const d = defaults;`,
    ],
  ],
  'migrations-stand-alone': [['migrations/imports-lib.ts', `import '../lib/core/engine.js';`]],
  'lib-knows-no-migrations': [['lib/imports-migrations.ts', `import '../migrations/index.js';`]],
  'client-stands-alone': [
    ['lib/client/imports-core.ts', `import '../core/engine.js';`],
    ['lib/client/imports-node.ts', `import 'node:crypto';`],
    ['lib/client/imports-node-types.ts', `import type { Server } from 'node:http'; export type S = Server;`],
    ['lib/client/imports-package.ts', `import 'typeorm';`],
    ['lib/client/imports-package-type.ts', `import type { Stub } from 'framework'; export type S = Stub;`],
    [
      'lib/client/imports-types-of-core.ts',
      `import type { engine } from '../core/engine.js'; export type E = typeof engine;`,
    ],
  ],
  'client-is-an-entry-point-of-its-own': [['lib/imports-client.ts', `import './client/index.js';`]],
  'sample-imports-the-package-by-name': [
    ['sample-app/imports-lib.ts', `import '../lib/index.js';`],
    ['sample-app/imports-test.ts', `import '../test/helpers/fake.js';`],
  ],
  'published-code-stays-inside': [
    ['lib/imports-sample.ts', `import '../sample-app/main.js';`],
    ['migrations/imports-test.ts', `import '../test/helpers/fake.js';`],
  ],
  'published-code-needs-no-dev-dependencies': [
    ['lib/imports-dev.ts', `import 'test-tool';`],
    ['lib/imports-dev-type.ts', `import type { Stub } from 'test-tool'; export type S = Stub;`],
  ],
  'published-code-declares-its-dependencies': [['lib/imports-undeclared.ts', `import 'undeclared';`]],
};

const tree = await realpath(await mkdtemp(join(tmpdir(), 'layout-rules-')));
try {
  const problems = [...untestedRules(), ...compare(await violations())];
  if (problems.length > 0) {
    throw new Error(`The layout rules do not do what they say:\n  ${problems.join('\n  ')}`);
  }
  console.log(`layout rules: all ${forbidden.length} notice what was planted for them, and nothing else`);
} finally {
  await rm(tree, { recursive: true, force: true });
}

function stubPackage(name) {
  return {
    [`node_modules/${name}/package.json`]: JSON.stringify({
      name,
      version: '1.0.0',
      type: 'module',
      main: 'index.js',
    }),
    [`node_modules/${name}/index.js`]: 'export {};',
    [`node_modules/${name}/index.d.ts`]: 'export interface Stub {}',
  };
}

async function violations() {
  const files = { ...innocent, ...Object.fromEntries(Object.values(planted).flat()) };
  for (const [file, content] of Object.entries(files)) {
    await mkdir(dirname(join(tree, file)), { recursive: true });
    await writeFile(join(tree, file), content);
  }
  process.chdir(tree);
  const { output } = await cruise(
    ['lib', 'migrations', 'sample-app', 'test'],
    { ...options, ruleSet: { forbidden, options }, validate: true, baseDir: tree },
    {},
    { tsConfig: extractTsConfig(join(tree, 'tsconfig.json')) },
  );
  return output.summary.violations;
}

function untestedRules() {
  return forbidden
    .filter(({ name }) => !(name in planted))
    .map(({ name }) => `${name}: nothing planted for it`);
}

function compare(found) {
  const expected = Object.entries(planted).flatMap(([rule, files]) =>
    files.map(([file]) => `${rule}: ${file}`),
  );
  const actual = found.map(({ rule, from }) => `${rule.name}: ${from}`);
  return [
    ...expected.filter((line) => !actual.includes(line)).map((line) => `${line} was not noticed`),
    ...actual.filter((line) => !expected.includes(line)).map((line) => `${line} was reported for no reason`),
  ];
}
