import { SEEDED_CLIENTS, SEEDED_WALLET, type SeededClient } from './database/seeds.js';
import type { ProvidedDatabase } from './postgres/database-url.js';

const ORDER = '{"product_id":123,"denomination":100,"quantity":5}';
const PAYOUT = '{"amount":"25.00"}';

/** What is printed once requests can come: the clients, and commands to paste into another terminal. */
export function greeting(address: string, database: ProvidedDatabase): string {
  const clients = SEEDED_CLIENTS.map((client) => introduce(client, address));
  // Somebody else's connection string may hold a password.
  const place = database.embedded ? `# Database: ${database.url}\n` : '';
  return [...clients, place].join('\n');
}

function introduce(client: SeededClient, address: string): string {
  const { name, apiKey, secret } = client;
  const { balance, currency } = SEEDED_WALLET;
  const commands = [
    create(client, `${address}/api/v1/orders`, 'my-first-order', ORDER),
    create(client, `${address}/api/v1/payouts`, 'my-first-payout', PAYOUT),
    look(client, `${address}/api/v1/orders`),
    look(client, `${address}/api/v1/wallet`),
  ];
  return [
    `# ${name}: X-API-Key ${apiKey}, X-API-Secret ${secret}; its wallet held ${balance} ${currency} at first`,
    ...commands,
    '',
  ].join('\n');
}

function create(client: SeededClient, url: string, key: string, body: string): string {
  const headers = `-H 'Idempotency-Key: ${key}' -H 'Content-Type: application/json'`;
  return `curl -i -w '\\n' ${credentials(client)} ${headers} -d '${body}' ${url}`;
}

function look(client: SeededClient, url: string): string {
  return `curl -s -w '\\n' ${credentials(client)} ${url}`;
}

function credentials({ apiKey, secret }: SeededClient): string {
  return `-H 'X-API-Key: ${apiKey}' -H 'X-API-Secret: ${secret}'`;
}
