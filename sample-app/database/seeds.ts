/** A client that exists from the first start. */
export interface SeededClient {
  readonly id: string;
  readonly name: string;
  readonly apiKey: string;
  readonly secret: string;
}

/** The clients, with secrets that are no secrets: they are printed at every start. */
export const SEEDED_CLIENTS: readonly SeededClient[] = [
  {
    id: '0b8f4f0e-6f0c-4a55-9a3e-1d1f3f6a7c01',
    name: 'First client',
    apiKey: 'sk_live_abc123def456',
    secret: 'your-secret-here',
  },
  {
    id: '0b8f4f0e-6f0c-4a55-9a3e-1d1f3f6a7c02',
    name: 'Second client',
    apiKey: 'sk_live_zyx987wvu654',
    secret: 'other-secret-here',
  },
];

/** What the payment provider signs its webhooks with. */
export const SEEDED_WEBHOOK_SECRET = 'whsec_sample_secret';

/** What each client's wallet holds at first. */
export const SEEDED_WALLET = { balance: '10000.00', currency: 'USD' } as const;

/** What each client's cart holds at first. */
export const SEEDED_CART = [
  { productId: 123, denomination: 25, quantity: 2 },
  { productId: 123, denomination: 50, quantity: 1 },
] as const;

/** What can be ordered. */
export const SEEDED_PRODUCTS = [{ id: 123, name: 'Gift card', denominations: [25, 50, 100] }];
