/** How SWC compiles this repository's TypeScript, for Jest and for child processes that tests start. */
export const swcOptions = {
  // No .swcrc is looked for: these options are all there is.
  swcrc: false,
  sourceMaps: 'inline',
  module: { type: 'es6' },
  jsc: {
    target: 'es2022',
    keepClassNames: true,
    parser: { syntax: 'typescript', decorators: true },
    transform: {
      legacyDecorator: true,
      decoratorMetadata: true,
      // With define semantics, fields that decorators or TypeORM fill would be reset to undefined.
      useDefineForClassFields: false,
    },
  },
};
