import pg from 'pg';
import type { TracedStatement } from './app-messages.js';

const statements: TracedStatement[] = [];

/** Notes each statement that goes through `pg`, so that a benchmark can send just the same without the application. */
export function startTrace(): void {
  const query = Reflect.get(pg.Client.prototype, 'query') as (...parameters: unknown[]) => unknown;
  Reflect.set(pg.Client.prototype, 'query', function (this: unknown, ...parameters: unknown[]): unknown {
    statements.push(...statementsOf(parameters));
    return query.apply(this, parameters);
  });
}

/** What was noted since the last call. */
export function takeTrace(): TracedStatement[] {
  return statements.splice(0);
}

function statementsOf([first, second]: unknown[]): TracedStatement[] {
  if (typeof first === 'string') return [{ text: first, values: textsOf(second) }];
  const { statements: several, text, values } = (first ?? {}) as Partial<Record<string, unknown>>;
  // What the library sends in one piece.
  if (Array.isArray(several)) return several.flatMap((statement) => statementsOf([statement]));
  return typeof text === 'string' ? [{ text, values: textsOf(values ?? second) }] : [];
}

function textsOf(values: unknown): (string | null)[] {
  if (!Array.isArray(values)) return [];
  return values.map((value: unknown) => {
    if (value === null || value === undefined) return null;
    if (value instanceof Uint8Array) return `\\x${Buffer.from(value).toString('hex')}`;
    if (value instanceof Date) return value.toISOString();
    return typeof value === 'string' || typeof value === 'bigint' ? String(value) : JSON.stringify(value);
  });
}
