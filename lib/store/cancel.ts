import { connect } from 'node:net';
import type { Client } from '../join/port.js';

/** What node-postgres knows of a session, and needs for its own `cancel()`. */
interface SessionFacts {
  readonly host?: unknown;
  readonly port?: unknown;
  readonly processID?: unknown;
  readonly secretKey?: unknown;
}

const CANCEL_REQUEST_CODE = 80_877_102;
/** How long a discarded connection is kept open so that the request can arrive. */
export const CANCEL_HEAD_START = 1_000;
/** Longer than PgBouncer keeps a request that it cannot forward yet (`cancel_wait_timeout`, 10 s). */
const CANCEL_PATIENCE = 15_000;

/**
 * Asks the server to end the statement that a session is executing, if any. A server that executes one does not notice
 * that its client has gone, and before PostgreSQL 17 would hold the transaction, and with it the key, until the
 * statement's own timeout. The protocol wants a connection of its own for that, whose end is the only answer: like libpq
 * we leave it to the server to close it. PgBouncer 1.18 crashes when it is closed while the request is being forwarded.
 */
export function cancelStatement(client: Client): Promise<void> {
  const { host, port, processID, secretKey } = client as SessionFacts;
  if (typeof host !== 'string' || typeof port !== 'number') return Promise.resolve();
  if (typeof processID !== 'number' || typeof secretKey !== 'number') return Promise.resolve();
  const request = Buffer.alloc(16);
  [request.length, CANCEL_REQUEST_CODE, processID, secretKey].forEach((value, index) =>
    request.writeInt32BE(value, index * 4),
  );
  const socket = host.startsWith('/') ? connect(`${host}/.s.PGSQL.${port}`) : connect(port, host);
  socket.on('error', () => undefined);
  socket.setTimeout(CANCEL_PATIENCE, () => socket.destroy());
  socket.unref();
  socket.resume();
  socket.write(request);
  return new Promise((resolve) => socket.once('close', () => resolve()));
}
