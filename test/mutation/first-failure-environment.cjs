const { TestEnvironment } = require('jest-environment-node');

/** One failure is enough to know that a mutant was noticed: what is left of the file is skipped. */
module.exports = class FirstFailureEnvironment extends TestEnvironment {
  #failed = false;

  handleTestEvent = (event) => {
    if (event.name === 'test_done') this.#failed ||= event.test.errors.length > 0;
    if (event.name === 'test_start' && this.#failed) event.test.mode = 'skip';
  };
};
