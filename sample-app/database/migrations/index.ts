import { CreateRewards1767312000000 } from './1767312000000-create-rewards.js';
import { CreateCarts1770000000000 } from './1770000000000-create-carts.js';
import { CreateShipping1770000001000 } from './1770000001000-create-shipping.js';
import { CreateSupport1770000002000 } from './1770000002000-create-support.js';
import { CreateCharges1770000003000 } from './1770000003000-create-charges.js';

/** The application's own migrations, oldest first. */
export const MIGRATIONS = [
  CreateRewards1767312000000,
  CreateCarts1770000000000,
  CreateShipping1770000001000,
  CreateSupport1770000002000,
  CreateCharges1770000003000,
];
