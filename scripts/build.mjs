// Builds the published package: ES modules and CommonJS side by side, from the same sources.
import { rm, writeFile } from 'node:fs/promises';
import { compile } from './compile.mjs';

await rm('dist', { recursive: true, force: true });
await Promise.all([compile('tsconfig.esm.json'), compile('tsconfig.cjs.json')]);
await writeFile('dist/cjs/package.json', '{ "type": "commonjs" }\n');
