// Builds what the sample application needs, then runs it in this very process, so that signals reach it.
import { cp } from 'node:fs/promises';
import { compile } from './compile.mjs';

await compile('tsconfig.esm.json');
await compile('tsconfig.sample.json');
await cp('sample-app/start-page/public', 'dist/sample-app/start-page/public', { recursive: true });
await import('../dist/sample-app/main.js');
