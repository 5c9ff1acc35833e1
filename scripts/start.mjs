// Builds what the sample application needs, then runs it in this very process, so that signals reach it.
import { compile } from './compile.mjs';

await compile('tsconfig.esm.json');
await compile('tsconfig.sample.json');
await import('../dist/sample-app/main.js');
