import { readFile, writeFile } from 'node:fs/promises';
import { sep } from 'node:path';
import { strykerPlugins as jestPlugins } from '@stryker-mutator/jest-runner';

/*
 * Stryker's own Jest runner runs every test file that is related to a mutated file, to its end. Here nearly all of them are
 * related to every file, most start applications, and the first test that fails says it all. So this runner goes from file to
 * file, those that cover the mutant only and the cheapest first, and stops at the first one that fails.
 */

/** Written by the process that made the dry run, in the sandbox all runners share. */
const COVERAGE = 'file-by-file-coverage.json';

const [jestPlugin] = jestPlugins;

class FileByFileRunner {
  #jest;
  #run;
  #coverage;
  #database;
  /** Test files that failed lately; mutants come in the order of the source, and its neighbour's judge is often its own. */
  #lately = [];

  constructor(jest) {
    this.#jest = jest;
    this.#run = jest.run.bind(jest);
  }

  capabilities() {
    return this.#jest.capabilities();
  }

  /** One server for all runs of this process: a new one for each of them would take longer than most tests do. */
  async init() {
    if (!process.env.DATABASE_URL) {
      await import('../jest/register-typescript.mjs');
      const { provideDatabase } = await import('../../sample-app/postgres/database-url.ts');
      this.#database = await provideDatabase({ durable: false });
      process.env.DATABASE_URL = this.#database.url;
    }
    await this.#jest.init();
  }

  async dispose() {
    await this.#database?.stop();
  }

  async dryRun(options) {
    const result = await this.#jest.dryRun(options);
    if (result.status === 'complete') await writeFile(COVERAGE, JSON.stringify(coverageOf(result)));
    return result;
  }

  async mutantRun(options) {
    this.#coverage ??= JSON.parse(await readFile(COVERAGE, 'utf8'));
    let nrOfTests = 0;
    for (const file of this.#filesFor(options)) {
      this.#jest.run = (settings) =>
        this.#run({ ...settings, testFiles: [file], fileNamesUnderTest: undefined });
      const result = asKilled(await this.#jest.mutantRun(options));
      if (result.status !== 'survived') {
        this.#lately = [file, ...this.#lately.filter((other) => other !== file)].slice(0, 3);
        return { ...result, nrOfTests: (result.nrOfTests ?? 0) + nrOfTests };
      }
      nrOfTests += result.nrOfTests;
    }
    return { status: 'survived', nrOfTests };
  }

  /** What is executed while modules are loaded is no single test's: all unit tests are asked, which load what they test. */
  #filesFor({ activeMutant, testFilter }) {
    const { cost, units, perMutant } = this.#coverage;
    const files = [...new Set([...(perMutant[activeMutant.id] ?? []), ...(testFilter ? [] : units)])];
    const rank = (file) => (this.#lately.includes(file) ? 0 : cost[file]);
    return files.toSorted((a, b) => rank(a) - rank(b));
  }
}

/** A file that cannot even be run to its end, for example because an application does not close any more, has noticed. */
function asKilled(result) {
  if (result.status !== 'error') return result;
  return { status: 'killed', killedBy: [], failureMessage: result.errorMessage, nrOfTests: 0 };
}

function coverageOf({ tests, mutantCoverage }) {
  const filesOf = new Map();
  const cost = {};
  for (const { id, fileName, timeSpentMs } of tests) {
    // Two files may have a test of the same name.
    filesOf.set(id, (filesOf.get(id) ?? new Set()).add(fileName));
    cost[fileName] = (cost[fileName] ?? 0) + timeSpentMs;
  }
  const perMutant = {};
  for (const [testId, mutants] of Object.entries(mutantCoverage.perTest)) {
    for (const [mutantId, hits] of Object.entries(mutants)) {
      if (hits === 0) continue;
      perMutant[mutantId] ??= new Set();
      for (const file of filesOf.get(testId) ?? []) perMutant[mutantId].add(file);
    }
  }
  const units = Object.keys(cost).filter((file) => file.includes(`${sep}test${sep}unit${sep}`));
  return {
    cost,
    units,
    perMutant: Object.fromEntries(Object.entries(perMutant).map(([id, files]) => [id, [...files]])),
  };
}

function fileByFileRunner(injector) {
  return new FileByFileRunner(jestPlugin.factory(injector));
}
fileByFileRunner.inject = ['$injector'];

export const strykerPlugins = [{ kind: 'TestRunner', name: 'file-by-file', factory: fileByFileRunner }];
