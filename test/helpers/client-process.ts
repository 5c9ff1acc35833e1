import { closeSync, existsSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { endpoint, unchecked, type CallResult, type PendingCall } from 'nestjs-pg-idempotency/client';
import { runTypeScript, type TypeScriptProcess } from './child-process.js';
import type { Charge } from './client-charges.js';

/** A charge that is to be made even if whoever makes it dies on the way. */
export interface DurableCharge {
  readonly baseUrl: string;
  /** Where key and input are kept. */
  readonly file: string;
  readonly body: { readonly amount: number; readonly ref: string };
}

/** What the process prints in the end. */
export type DurableResult = Pick<CallResult<Charge>, 'data' | 'key' | 'replayed'>;

/** Starts a process that makes a charge. It prints `saved`, and then its {@link DurableResult} as JSON. */
export function startDurableCharge(charge: DurableCharge, stopBeforeSending = false): TypeScriptProcess {
  return runTypeScript(`
    import { makeDurably } from './test/helpers/client-process.ts';
    const { data, key, replayed } = await makeDurably(${JSON.stringify(charge)}, async () => {
      console.log('saved');
      if (${stopBeforeSending}) await new Promise(() => undefined);
    });
    console.log(JSON.stringify({ data, key, replayed }));
  `);
}

/** Makes a charge, or goes on with the one that a process before this one has left. */
export async function makeDurably(
  { baseUrl, file, body }: DurableCharge,
  afterSave?: () => Promise<void>,
): Promise<CallResult<Charge>> {
  const charge = endpoint({
    method: 'POST',
    baseUrl,
    path: '/charges',
    input: unchecked<DurableCharge['body']>(),
    output: unchecked<Charge>(),
    retry: { attempts: 3, backoff: { base: '5ms' } },
    timeout: { total: '60s', perAttempt: '30s' },
    idempotency: {},
    saveKey: async ({ key, input }) => {
      writeDurably(file, { key, input });
      await afterSave?.();
    },
  });
  const left = readPending(file);
  return left ? charge(left.input, { idempotencyKey: left.key }) : charge({ body });
}

/** What a process has left in its file. */
export function readPending(file: string): { key: string; input: Pick<DurableCharge, 'body'> } | undefined {
  if (!existsSync(file)) return undefined;
  return JSON.parse(readFileSync(file, 'utf8')) as { key: string; input: Pick<DurableCharge, 'body'> };
}

/** All of it or nothing, and on the disk when this returns: both the content and the name. */
function writeDurably(file: string, content: Pick<PendingCall, 'key' | 'input'>): void {
  const draft = openSync(`${file}.draft`, 'w');
  writeSync(draft, JSON.stringify(content));
  fsyncSync(draft);
  closeSync(draft);
  renameSync(`${file}.draft`, file);
  const directory = openSync(dirname(file), 'r');
  fsyncSync(directory);
  closeSync(directory);
}
