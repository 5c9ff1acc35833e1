import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { transformSync } from '@swc/core';
import { swcOptions } from './swc-options.mjs';

const OWN_NAMES = new Map([
  ['nestjs-pg-idempotency', new URL('../../lib/index.ts', import.meta.url).href],
  ['nestjs-pg-idempotency/client', new URL('../../lib/client/index.ts', import.meta.url).href],
  ['nestjs-pg-idempotency/migrations', new URL('../../migrations/index.ts', import.meta.url).href],
]);

const JEST_GLOBALS = new URL('./globals.mjs', import.meta.url).href;

/** @type {import('node:module').ResolveHook} */
export function resolve(specifier, context, nextResolve) {
  if (specifier === '@jest/globals')
    return { url: `${JEST_GLOBALS}?for=${context.parentURL}`, shortCircuit: true };
  const own = OWN_NAMES.get(specifier);
  if (own !== undefined) return nextResolve(own, context);
  if (specifier.startsWith('.') && specifier.endsWith('.js') && context.parentURL?.startsWith('file:')) {
    const source = new URL(specifier.replace(/\.js$/, '.ts'), context.parentURL);
    if (existsSync(source)) return nextResolve(source.href, context);
  }
  return nextResolve(specifier, context);
}

/** @type {import('node:module').LoadHook} */
export function load(url, context, nextLoad) {
  if (!url.startsWith('file:') || !new URL(url).pathname.endsWith('.ts')) return nextLoad(url, context);
  const filename = fileURLToPath(url);
  const { code } = transformSync(readFileSync(filename, 'utf8'), { ...swcOptions, filename });
  return { format: 'module', source: code, shortCircuit: true };
}
