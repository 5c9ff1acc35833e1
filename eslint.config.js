import { builtinModules } from 'node:module';
import js from '@eslint/js';
import { defineConfig } from 'eslint/config';
import prettier from 'eslint-config-prettier';
import tsdoc from 'eslint-plugin-tsdoc';
import tseslint from 'typescript-eslint';

const unprefixedBuiltins = builtinModules.filter((name) => !name.startsWith('_') && !name.includes(':'));

const namedExportsOnly = {
  selector: 'ExportDefaultDeclaration',
  message: 'Named exports only: they keep one name wherever they are used.',
};

const sourceRules = {
  'no-restricted-syntax': ['error', namedExportsOnly],
  'no-restricted-imports': [
    'error',
    { paths: unprefixedBuiltins.map((name) => ({ name, message: `Write 'node:${name}'.` })) },
  ],
  'no-warning-comments': ['error', { terms: ['todo', 'fixme', 'xxx'] }],
  eqeqeq: ['error', 'always', { null: 'ignore' }],
  'tsdoc/syntax': 'error',
  '@typescript-eslint/consistent-type-imports': ['error', { fixStyle: 'separate-type-imports' }],
  '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
  // Nest takes its options as object literals and declares some of their types as classes.
  '@typescript-eslint/no-unsafe-class-instance-assignment': 'off',
  // Modules and migrations of Nest and TypeORM are classes whose content is their decorator.
  '@typescript-eslint/no-extraneous-class': ['error', { allowWithDecorator: true }],
  '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
  '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true }],
  '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', ignoreRestSiblings: true }],
};

const size = { skipBlankLines: true, skipComments: true };

const noFocusedOrSkippedTests = ['describe', 'it', 'test'].flatMap((object) =>
  ['only', 'skip', 'todo'].map((property) => ({ object, property, message: 'Every test runs, always.' })),
);

export default defineConfig(
  {
    ignores: [
      'dist/',
      'coverage/',
      '.data/',
      '.stryker-tmp/',
      'reports/',
      'test/interop/nest*/',
      'test/interop/apps/',
    ],
  },
  {
    // A rule that is wrong is changed here, for everybody, and not silenced line by line.
    linterOptions: { noInlineConfig: true, reportUnusedDisableDirectives: 'error' },
  },
  {
    files: ['**/*.ts'],
    extends: [js.configs.recommended, ...tseslint.configs.strictTypeChecked],
    plugins: { tsdoc },
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: sourceRules,
  },
  {
    files: ['lib/**/*.ts', 'sample-app/**/*.ts', 'migrations/**/*.ts'],
    rules: {
      'max-lines': ['error', { max: 250, ...size }],
      'max-lines-per-function': ['error', { max: 40, ...size }],
    },
  },
  {
    // All SQL stands in one place.
    files: ['lib/store/sql.ts'],
    rules: { 'max-lines': 'off' },
  },
  {
    // A promise that nobody waits for and nobody catches ends the process with the first error.
    files: ['lib/http/**/*.ts', 'lib/transports/**/*.ts'],
    rules: { '@typescript-eslint/no-floating-promises': ['error', { ignoreVoid: false }] },
  },
  {
    files: ['test/**/*.ts', 'bench/**/*.ts'],
    rules: {
      'no-restricted-properties': ['error', ...noFocusedOrSkippedTests],
      // Handlers in fixtures are async because the ones they stand for are.
      '@typescript-eslint/require-await': 'off',
      '@typescript-eslint/unbound-method': 'off',
      '@typescript-eslint/no-non-null-assertion': 'off',
      // Bodies of responses and rows of queries are `any` until an assertion has looked at them.
      '@typescript-eslint/no-unsafe-assignment': 'off',
      '@typescript-eslint/no-unsafe-argument': 'off',
      '@typescript-eslint/no-unsafe-member-access': 'off',
      '@typescript-eslint/no-unsafe-return': 'off',
    },
  },
  {
    files: ['**/*.{js,mjs,cjs}'],
    extends: [js.configs.recommended],
    languageOptions: {
      globals: {
        AbortSignal: 'readonly',
        Response: 'readonly',
        URL: 'readonly',
        console: 'readonly',
        fetch: 'readonly',
        performance: 'readonly',
        module: 'writable',
        process: 'readonly',
        require: 'readonly',
        setTimeout: 'readonly',
        clearTimeout: 'readonly',
      },
    },
  },
  {
    files: ['sample-app/start-page/public/*.js'],
    languageOptions: {
      globals: { Option: 'readonly', crypto: 'readonly', document: 'readonly' },
    },
  },
  prettier,
);
