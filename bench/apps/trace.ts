import pg from 'pg';
import type { TracedStatement } from './app-messages.js';

const statements: TracedStatement[] = [];

/** Notes each statement that goes through `pg`, so that a benchmark can send just the same without the application. */
export function startTrace(): void {
  const query = Reflect.get(pg.Client.prototype, 'query') as (...parameters: unknown[]) => unknown;
  Reflect.set(pg.Client.prototype, 'query', function (this: unknown, ...parameters: unknown[]): unknown {
    const statement = statementOf(parameters);
    if (statement !== undefined) statements.push(statement);
    return query.apply(this, parameters);
  });
}

/** What was noted since the last call. */
export function takeTrace(): TracedStatement[] {
  return statements.splice(0);
}

function statementOf([first, second]: unknown[]): TracedStatement | undefined {
  if (typeof first === 'string') return { text: first, values: textsOf(second) };
  const { text, values } = (first ?? {}) as { text?: unknown; values?: unknown };
  return typeof text === 'string' ? { text, values: textsOf(values ?? second) } : undefined;
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
