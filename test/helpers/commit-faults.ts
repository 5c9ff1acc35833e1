import { deferred } from './conditions.js';
import type { ProxiedConnection, TcpProxy } from './tcp-proxy.js';

/** A fault that is armed on a proxy and strikes once. */
export interface Fault {
  /** Resolves when the fault has struck, with the connection that it struck. */
  readonly struck: Promise<ProxiedConnection>;
  /** Takes the fault back. */
  disarm(): void;
}

/** Resets the connection instead of forwarding a `COMMIT`: the server never hears of it, and rolls back. */
export function cutBeforeCommit(proxy: TcpProxy): Fault {
  const { promise, resolve } = deferred<ProxiedConnection>();
  const disarm = proxy.onClientData((chunk, connection) => {
    if (!isCommit(chunk)) return 'forward';
    disarm();
    resolve(connection);
    return 'cut-before';
  });
  return { struck: promise, disarm };
}

/** Forwards a `COMMIT`, swallows the server's answer and resets the connection: committed, but nobody knows. */
export function loseCommitAnswer(proxy: TcpProxy): Fault {
  const { promise, resolve } = deferred<ProxiedConnection>();
  const committing = new Set<ProxiedConnection>();
  const removals = [
    proxy.onClientData((chunk, connection) => {
      if (isCommit(chunk)) committing.add(connection);
    }),
    proxy.onServerData((chunk, connection) => {
      // Only the command tag tells that the server is through: an answer to an earlier statement may come first.
      if (!committing.has(connection) || !isCommitAnswer(chunk)) return 'forward';
      disarm();
      resolve(connection);
      return 'cut-before';
    }),
  ];
  const disarm = (): void => removals.forEach((remove) => remove());
  return { struck: promise, disarm };
}

/**
 * Whether these bytes hold the `COMMIT` of a handler's transaction: after the length of a simple query, or the name of a prepared
 * statement. A statement of the library's own travels in one piece with the BEGIN and the COMMIT around it.
 */
export function isCommit(chunk: Buffer): boolean {
  const texts = chunk.toString('latin1').split('\0');
  const isWhole = texts.some((text) => /^[^]?begin\b/i.test(text));
  return !isWhole && texts.some((text) => /^[^]?commit\s*;?\s*$/i.test(text));
}

/** Whether these bytes hold the command tag of a `COMMIT` that committed; one that rolled back has another. */
export function isCommitAnswer(chunk: Buffer): boolean {
  return chunk.includes('C\0\0\0\x0bCOMMIT\0');
}

/** Whether these bytes hold a claim: its text, or the name under which the server has it prepared. */
export function isClaim(chunk: Buffer): boolean {
  return (
    chunk.includes('pg_try_advisory_xact_lock') ||
    /\0idempotency_(?:lock|claim)_/.test(chunk.toString('latin1'))
  );
}
