// Lets a plain Node process import this repository's TypeScript, as Jest does for the tests themselves:
// `node --import ./test/jest/register-typescript.mjs some-file.ts`
import * as nodeModule from 'node:module';
import * as hooks from './typescript-hooks.mjs';

// Newer Node versions deprecate `register` in favour of `registerHooks`, which Node 20 does not have.
if (typeof nodeModule.registerHooks === 'function') nodeModule.registerHooks(hooks);
else nodeModule.register('./typescript-hooks.mjs', import.meta.url);
