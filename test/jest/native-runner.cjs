'use strict';
const { dirname, sep } = require('node:path');
const { pathToFileURL } = require('node:url');
const circus = require('jest-circus/runner').default;

const CIRCUS = dirname(require.resolve('jest-circus/runner')) + sep;
let files = 0;

/**
 * Runs a file's tests by jest-circus, as Jest does, but has Node load the modules: once in a worker, not once for each file.
 * What Jest's own modules for ES modules cost is most of a suite's time, and its memory is never given back.
 */
module.exports = function runNatively(
  globalConfig,
  config,
  environment,
  runtime,
  testPath,
  sendMessageToJest,
) {
  runtime.requireInternalModule = requireAnew;
  runtime.unstable_shouldLoadAsEsm = () => true;
  runtime.unstable_importModule = (path) => {
    globalThis[Symbol.for('jest globals')] = runtime.requireModuleOrMock(path, '@jest/globals');
    return import(`${pathToFileURL(path).href}?file=${++files}`);
  };
  // Jest's own reads source maps from its transforms, of which there are none. Node has those of the hooks.
  Error.prepareStackTrace = undefined;
  return circus(globalConfig, config, environment, runtime, testPath, sendMessageToJest);
};

/** Every file has a jest-circus of its own: what it knows of tests, hooks and handlers lives in its modules. */
function requireAnew(path) {
  for (const loaded of Object.keys(require.cache)) {
    if (loaded.startsWith(CIRCUS) && !loaded.endsWith('runner.js')) delete require.cache[loaded];
  }
  return require(path);
}
