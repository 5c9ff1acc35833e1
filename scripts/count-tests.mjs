// Prints `N passed, N failed` from Jest's JSON report, and fails unless tests ran and all of them passed.
import { readFile } from 'node:fs/promises';

const report = await read(process.argv[2]);
const passed = report.numPassedTests;
// A file that cannot even be loaded has no tests of its own to fail.
const failed = report.numFailedTests + report.numRuntimeErrorTestSuites;

console.log(`${passed} passed, ${failed} failed`);
process.exitCode = passed > 0 && failed === 0 ? 0 : 1;

async function read(file) {
  try {
    return JSON.parse(await readFile(file, 'utf8'));
  } catch (error) {
    console.error(`Jest left no report: ${error.message}`);
    return { numPassedTests: 0, numFailedTests: 0, numRuntimeErrorTestSuites: 1 };
  }
}
