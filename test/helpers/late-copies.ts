import { deferred } from './conditions.js';
import type { ProxiedConnection, TcpProxy } from './tcp-proxy.js';

/** A statement that is sent more than once, and whose first copy the network holds up. */
export interface LateCopy {
  /** Resolves when the first copy has been sent, and is held up. */
  readonly held: Promise<void>;
  /** Lets later copies pass. Until then they wait. */
  letOthersPass(): void;
  /** Lets the first copy arrive, long after its sender gave it up. Resolves when the server has answered it. */
  deliver(): Promise<void>;
}

/** Holds up the first of the chunks that `isMeant` knows, with everything behind it on that connection. */
export function holdFirstCopy(proxy: TcpProxy, isMeant: (chunk: Buffer) => boolean): LateCopy {
  const [held, others, arrival, answered] = [deferred(), deferred(), deferred(), deferred()];
  let first: ProxiedConnection | undefined;
  let isOnItsWay = false;
  const stop = proxy.onClientData(async (chunk, connection): Promise<undefined> => {
    if (!isMeant(chunk)) return;
    if (first === undefined) {
      first = connection;
      held.resolve();
      await arrival.promise;
      isOnItsWay = true;
    } else if (connection !== first) {
      await others.promise;
    }
  });
  const listening = proxy.onServerData((_chunk, connection): undefined => {
    if (connection === first && isOnItsWay) answered.resolve();
  });
  return {
    held: held.promise,
    letOthersPass: () => others.resolve(),
    deliver: async () => {
      others.resolve();
      arrival.resolve();
      await answered.promise;
      stop();
      listening();
    },
  };
}

const TABLE = '"public"."idempotency_records"';

/** Whether these bytes hold a statement that may insert the record of this key: its text, or the name of a claim's. */
export function insertsRecord(key: string): (chunk: Buffer) => boolean {
  return (chunk) =>
    chunk.includes(key) && (chunk.includes(`INSERT INTO ${TABLE}`) || chunk.includes('idempotency_claim_'));
}

/** Whether these bytes hold a statement that may write over a record of this key. */
export function writesOver(key: string): (chunk: Buffer) => boolean {
  return (chunk) => chunk.includes(key) && (chunk.includes(`UPDATE ${TABLE}`) || chunk.includes('DO UPDATE'));
}
