'use strict';
const { createContext } = require('node:vm');
const { ModernFakeTimers } = require('@jest/fake-timers');
const { ModuleMocker } = require('jest-mock');

/**
 * The process itself as a test's environment: no second global object, so that `instanceof` and every built-in mean the
 * same to the tests, to the library and to Node.
 */
module.exports = class NativeEnvironment {
  #exit = process.exit;
  #console = console;

  constructor({ projectConfig }) {
    this.global = globalThis;
    // Jest asks for a context, although nothing is run in it.
    this.context = createContext();
    this.moduleMocker = new ModuleMocker(globalThis);
    this.fakeTimersModern = new ModernFakeTimers({ config: projectConfig, global: globalThis });
  }

  async setup() {}

  async teardown() {
    this.fakeTimersModern.dispose();
    // Jest puts its own in their place for each file.
    process.exit = this.#exit;
    globalThis.console = this.#console;
  }

  exportConditions() {
    return ['node', 'node-addons'];
  }

  getVmContext() {
    return this.context;
  }
};
