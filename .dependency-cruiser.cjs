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
      name: 'store-stands-on-a-pool',
      comment:
        'The store needs a pool, and a port for whatever the application queries with: no ORM, no HTTP.',
      severity: 'error',
      from: { path: '^lib/store/' },
      to: {
        path: '^lib/(join/typeorm|http|transports|run|client|openapi)/|node_modules/(typeorm|@nestjs/typeorm|@nestjs/platform-|express|fastify)',
      },
    },
    {
      name: 'join-knows-no-store',
      severity: 'error',
      from: { path: '^lib/join/' },
      to: { path: '^lib/(store|http|transports|run|client|openapi)/' },
    },
    {
      name: 'join-knows-its-library-in-one-folder',
      comment: 'The port is structural: each library that queries with has a folder of its own.',
      severity: 'error',
      from: { path: '^lib/join/[^/]+$' },
      to: { path: '^lib/join/[^/]+/|node_modules/(typeorm|pg)/' },
    },
    {
      name: 'http-knows-no-store',
      comment: 'HTTP talks to the ports in the core.',
      severity: 'error',
      from: { path: '^lib/(http|transports)/' },
      to: { path: '^lib/(store|join|run|client)/|node_modules/(typeorm|pg|@nestjs/typeorm)/' },
    },
    {
      name: 'adapters-know-no-module',
      comment: 'Imports run one way: core, then store, join and transports, then the module.',
      severity: 'error',
      from: { path: '^lib/(http|transports|store|join)/' },
      to: { path: '^lib/[^/]+$', pathNot: '^lib/idempotency\\.options\\.ts$' },
    },
    {
      name: 'options-only-as-types',
      comment: 'The options file may be shared for its types, so that it adds no edge at run time.',
      severity: 'error',
      from: { path: '^lib/(http|transports|store|join)/' },
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
