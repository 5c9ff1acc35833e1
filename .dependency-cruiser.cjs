/**
 * The layout of the code as rules. `test/package/layout-rules.mjs` plants a violation of each one and
 * fails when a rule does not notice.
 *
 * @type {import('dependency-cruiser').IConfiguration}
 */
module.exports = {
  forbidden: [
    {
      name: 'no-cycles',
      comment: 'Cycles break decorator metadata: a class is read before it exists.',
      severity: 'error',
      from: {},
      to: { circular: true },
    },
    {
      name: 'no-unresolved',
      comment: 'An import that cannot be resolved escapes every other rule.',
      severity: 'error',
      from: {},
      to: { couldNotResolve: true },
    },
    {
      name: 'core-stands-alone',
      comment: 'The core knows Node.js and itself: no framework, no database, no HTTP.',
      severity: 'error',
      from: { path: '^lib/core/' },
      to: { pathNot: '^lib/core/', dependencyTypesNot: ['core'] },
    },
    {
      name: 'postgres-knows-no-http',
      severity: 'error',
      from: { path: '^lib/postgres/' },
      to: {
        path: '^lib/(http|transports|purge|run|client)/|node_modules/(@nestjs/platform-|express|fastify)',
      },
    },
    {
      name: 'http-knows-no-postgres',
      comment: 'HTTP talks to the ports in the core.',
      severity: 'error',
      from: { path: '^lib/(http|transports)/' },
      to: { path: '^lib/(postgres|purge|run|client)/|node_modules/(typeorm|pg|@nestjs/typeorm)/' },
    },
    {
      name: 'purge-knows-no-http',
      severity: 'error',
      from: { path: '^lib/purge/' },
      to: { path: '^lib/(http|transports|run|client)/' },
    },
    {
      name: 'adapters-know-no-module',
      comment: 'Imports run one way: core, then postgres and http, then the module.',
      severity: 'error',
      from: { path: '^lib/(http|transports|postgres|purge)/' },
      to: { path: '^lib/[^/]+$', pathNot: '^lib/idempotency\\.options\\.ts$' },
    },
    {
      name: 'options-only-as-types',
      comment: 'The options file may be shared for its types, so that it adds no edge at run time.',
      severity: 'error',
      from: { path: '^lib/(http|transports|postgres|purge)/' },
      to: { path: '^lib/idempotency\\.options\\.ts$', dependencyTypesNot: ['type-only'] },
    },
    {
      name: 'migrations-stand-alone',
      comment: 'Migrations are history: a change in the library must not change what they did.',
      severity: 'error',
      from: { path: '^migrations/' },
      to: { path: '^lib/' },
    },
    {
      name: 'lib-knows-no-migrations',
      severity: 'error',
      from: { path: '^lib/' },
      to: { path: '^migrations/' },
    },
    {
      name: 'client-stands-alone',
      comment: 'The client runs in browsers.',
      severity: 'error',
      from: { path: '^lib/client/' },
      to: { pathNot: '^lib/client/' },
    },
    {
      name: 'client-is-an-entry-point-of-its-own',
      severity: 'error',
      from: { path: '^lib/(?!client/)' },
      to: { path: '^lib/client/' },
    },
    {
      name: 'sample-imports-the-package-by-name',
      comment: 'The sample application shows what an application writes.',
      severity: 'error',
      from: { path: '^sample-app/' },
      to: { path: '^(lib|migrations|test|scripts)/', dependencyTypesNot: ['aliased'] },
    },
    {
      name: 'published-code-stays-inside',
      severity: 'error',
      from: { path: '^(lib|migrations)/' },
      to: { path: '^(sample-app|test|scripts|bench|docs|dist)/' },
    },
    {
      name: 'published-code-needs-no-dev-dependencies',
      comment: 'Also as types: an application that installs the package has to be able to compile it.',
      severity: 'error',
      from: { path: '^(lib|migrations)/' },
      to: { dependencyTypes: ['npm-dev'], dependencyTypesNot: ['npm', 'npm-peer', 'npm-optional'] },
    },
    {
      name: 'published-code-declares-its-dependencies',
      severity: 'error',
      from: { path: '^(lib|migrations)/' },
      to: { dependencyTypesNot: ['npm-peer'], dependencyTypes: ['npm-no-pkg', 'npm-unknown'] },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '^(dist|coverage)/' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['types', 'import', 'require', 'node', 'default'],
    },
  },
};
