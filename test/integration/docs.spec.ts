import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { typeErrors } from '../helpers/type-check.js';

/** What the examples take for granted: the application around them. */
const PRELUDE = `
import { BadGatewayException, Body, ConflictException, Controller, Post } from '@nestjs/common';
import { afterCommit, CurrentExecution, Idempotent, IdempotencyModule, IdempotencyPurgeService, IdempotencyService, outside,
  ReleaseIdempotencyKey, sharedClient, type IdempotencyExecution, type ReconcileHandler } from 'nestjs-pg-idempotency';
import { idempotencyMigrations } from 'nestjs-pg-idempotency/migrations';
import type { Repository } from 'typeorm';
class Charge { amount!: string; receipt!: string }
class Payment { id!: string; amount!: string }
class CreatePayment { amount!: string }
class ConnectionRefused extends Error {}
declare const error: unknown, client: string, endpoint: string, key: string, idempotency: IdempotencyService;
declare const provider: {
  findByKey(key: string): Promise<{ id: string } | null | undefined>;
  charge(charge: Charge, options: { idempotencyKey: string; signal: AbortSignal }): Promise<{ id: string }>;
};
declare const payments: Repository<Payment>;
declare const message: { id: string; body: Charge; ack(): void; requeue(seconds: number): void; deadLetter(why: string): void };
declare function handle(charge: Charge): Promise<void>;
declare function reserve(charge: Charge): Promise<{ id: string }>;
declare function charge(order: { id: string }, key: string): Promise<void>;
declare function ship(order: { id: string }): Promise<void>;
void [payments, message, handle, reserve, charge, ship, BadGatewayException, Body, ConflictException, Controller, Post, afterCommit, CurrentExecution, Idempotent,
  IdempotencyModule, IdempotencyPurgeService, outside, ReleaseIdempotencyKey, sharedClient, idempotencyMigrations, error,
  client, endpoint, key, idempotency, provider, ConnectionRefused, Payment, CreatePayment];
type Used = [IdempotencyExecution, ReconcileHandler, Repository<Charge>];
export type { Used };
`;

/** Blocks of a page that are not files of the quick start, which a test of its own runs. */
function examplesOf(markdown: string): string[] {
  const blocks = [...markdown.matchAll(/```ts\n(.*?)```/gs)].map(([, code]) => code!);
  return blocks.filter((code) => !code.startsWith('// src/'));
}

/** A handler needs a class around it. */
function asModule(example: string): string {
  const members =
    'declare payments: Repository<Payment>; declare charges: Repository<Charge>; declare provider: typeof provider;';
  const code = example.startsWith('@')
    ? `@Controller() class Example { ${members}\n${example} }\nvoid Example;`
    : example;
  return `${PRELUDE}\n${code}`;
}

describe('the examples of the documentation', () => {
  let folder: string;

  beforeAll(async () => {
    await mkdir('node_modules/.cache', { recursive: true });
    folder = await mkdtemp('node_modules/.cache/docs-');
  });

  afterAll(() => rm(folder, { recursive: true, force: true }));

  it('compile', async () => {
    const names = await readdir('docs', { recursive: true });
    const pages = [
      'README.md',
      ...names.filter((name) => name.endsWith('.md')).map((name) => `docs/${name}`),
    ];
    const files: string[] = [];
    for (const page of pages) {
      for (const [index, example] of examplesOf(await readFile(page, 'utf8')).entries()) {
        const file = join(folder, `${page.replace(/\W/g, '-')}-${index}.ts`);
        await writeFile(file, asModule(example));
        files.push(file);
      }
    }
    expect(files.length).toBeGreaterThan(5);
    expect(typeErrors(files)).toEqual([]);
  });
});

describe('the links of the documentation', () => {
  it('lead to files that exist', async () => {
    const pages = (await readdir('docs', { recursive: true })).filter((page) => page.endsWith('.md'));
    const missing: string[] = [];
    for (const page of ['README.md', ...pages.map((name) => join('docs', name))]) {
      for (const [, target = ''] of (await readFile(page, 'utf8')).matchAll(/\]\(([^)#\s]+)(?:#[^)]*)?\)/g)) {
        if (/^[a-z]+:/.test(target)) continue;
        if (!existsSync(join(dirname(page), target))) missing.push(`${page}: ${target}`);
      }
    }
    expect(missing).toEqual([]);
  });
});
