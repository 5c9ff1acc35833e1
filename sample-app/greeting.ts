import { SEEDED_CLIENTS, SEEDED_WALLET, type SeededClient } from './database/seeds.js';
import type { ProvidedDatabase } from './postgres/database-url.js';

/** A request to paste into another terminal. */
interface Request {
  readonly path: string;
  /** By POST; none is a GET. */
  readonly body?: string;
  readonly key?: string;
}

const CHARGE = '{"amount":4200,"ref":"inv_88"}';
const ORDER = '{"product_id":123,"denomination":100,"quantity":5}';
const SHIPPING_ORDER =
  '{"idempotencyKey":"my-parcel","reference":"R-1","items":[{"sku":"mug","quantity":2}]}';

/** What there is to try, by API. */
const REQUESTS: readonly (readonly [about: string, ...requests: Request[]])[] = [
  [
    `Rewards, paid out of a wallet that held ${SEEDED_WALLET.balance} ${SEEDED_WALLET.currency} at first; a key is required`,
    { path: '/api/v1/orders', body: ORDER, key: 'my-first-order' },
    { path: '/api/v1/payouts', body: '{"amount":"25.00"}', key: 'my-first-payout' },
    { path: '/client/api/cart/checkout', body: '{}', key: 'my-first-cart' },
    { path: '/api/v1/orders' },
    { path: '/api/v1/wallet' },
  ],
  [
    'Shipping: the key is in the body, and duplicates are answered with 200',
    { path: '/api/v1/orders/create', body: SHIPPING_ORDER },
  ],
  [
    'Support: the key is optional',
    { path: '/tickets', body: '{"title":"Need help"}', key: 'my-first-ticket' },
    { path: '/tickets' },
  ],
  [
    'Charges, at once or by the worker of a queue: the key is optional',
    { path: '/charges', body: CHARGE, key: 'my-first-charge' },
    { path: '/jobs/charges', body: CHARGE, key: 'my-first-job' },
    { path: '/charges?ref=inv_88' },
  ],
];

/** What is printed once requests can come: where to look, who the clients are, and commands to paste. */
export function greeting(address: string, database: ProvidedDatabase): string {
  const commands = REQUESTS.map(([about, ...requests]) =>
    [`# ${about}`, ...requests.map((request) => curl(request, address)), ''].join('\n'),
  );
  const lines = [
    `# Start page: ${address}/  API: ${address}/docs  Loops that retry: sample-app/clients/`,
    ...SEEDED_CLIENTS.map(introduce),
    '',
    ...commands,
  ];
  // Somebody else's connection string may hold a password.
  if (database.embedded) lines.push(`# Database: ${database.url}\n`);
  return lines.join('\n');
}

function introduce({ name, apiKey, secret }: SeededClient): string {
  return `# ${name}: X-API-Key ${apiKey}, X-API-Secret ${secret}`;
}

/** As the first client. */
function curl({ path, body, key }: Request, address: string): string {
  const [client] = SEEDED_CLIENTS;
  const headers = [`X-API-Key: ${client?.apiKey}`, `X-API-Secret: ${client?.secret}`];
  if (key !== undefined) headers.push(`Idempotency-Key: ${key}`);
  if (body !== undefined) headers.push('Content-Type: application/json');
  return [
    body === undefined ? 'curl -s' : 'curl -i',
    `-w '\\n'`,
    ...headers.map((header) => `-H '${header}'`),
    ...(body === undefined ? [] : [`-d '${body}'`]),
    `'${address}${path}'`,
  ].join(' ');
}
