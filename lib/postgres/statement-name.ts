import { createHash } from 'node:crypto';

/**
 * The name under which a text is prepared. Another name for another text: one session may serve several tables, and behind a
 * pooler several releases.
 */
export function statementName(what: string, text: string): string {
  return `idempotency_${what}_${createHash('sha256').update(text).digest('hex').slice(0, 32)}`;
}
