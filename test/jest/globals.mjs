// What `@jest/globals` is for a test file: the hooks resolve it to a copy of this module for each file that imports it.
export const { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, jest, test } =
  globalThis[Symbol.for('jest globals')];
