import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** A payment provider: it charges once for each key, however often it is asked. */
export interface PaymentProvider {
  readonly url: string;
  /** How often something was charged for that order, under whatever keys. */
  chargesFor(order: string): number;
  close(): Promise<void>;
}

/** Starts a {@link PaymentProvider} on a free port: `POST /charges {"key"}`, with an `Idempotency-Key`. */
export async function startProvider(): Promise<PaymentProvider> {
  const charges = new Map<string, { readonly number: number; readonly order: string }>();
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    let body = '';
    for await (const chunk of request as AsyncIterable<Buffer>) body += chunk.toString();
    const { key: order } = JSON.parse(body) as { key: string };
    const key = String(request.headers['idempotency-key']);
    const charge = charges.get(key) ?? { number: charges.size + 1, order };
    charges.set(key, charge);
    response.setHeader('Content-Type', 'application/json').end(JSON.stringify({ charge: charge.number }));
  };
  const server = createServer((request, response) => {
    // A caller that was killed in the middle of its request has nobody to answer.
    answer(request, response).catch(() => response.destroy());
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    chargesFor: (order) => [...charges.values()].filter((charge) => charge.order === order).length,
    close: async () => {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}
