import { Injectable, type OnModuleInit } from '@nestjs/common';
import { InjectDataSource } from '@nestjs/typeorm';
import type { DataSource, EntityManager } from 'typeorm';
import { ApiClient } from '../auth/api-client.entity.js';
import { sha256 } from '../auth/sha256.js';
import { CartItem } from '../rewards/cart/cart-item.entity.js';
import { Product } from '../rewards/products/product.entity.js';
import { Wallet } from '../rewards/wallet/wallet.entity.js';
import { SEEDED_CART, SEEDED_CLIENTS, SEEDED_PRODUCTS, SEEDED_WALLET } from './seeds.js';

/** Puts the seeds into the tables before the first request. Rows that are there stay as they are. */
@Injectable()
export class SeederService implements OnModuleInit {
  constructor(@InjectDataSource() private readonly dataSource: DataSource) {}

  async onModuleInit(): Promise<void> {
    await this.dataSource.transaction((manager) => seed(manager));
  }
}

async function seed(manager: EntityManager): Promise<void> {
  const clients = SEEDED_CLIENTS.map(({ id, name, apiKey, secret }) => {
    return { id, name, apiKey, secretSha256: sha256(secret) };
  });
  const wallets = SEEDED_CLIENTS.map(({ id }) => ({ clientId: id, ...SEEDED_WALLET }));
  const carts = SEEDED_CLIENTS.flatMap(({ id }) => SEEDED_CART.map((item) => ({ clientId: id, ...item })));
  const inserted = await manager
    .createQueryBuilder()
    .insert()
    .into(ApiClient)
    .values(clients)
    .orIgnore()
    .returning('id')
    .execute();
  await manager.createQueryBuilder().insert().into(Wallet).values(wallets).orIgnore().execute();
  await manager.createQueryBuilder().insert().into(Product).values(SEEDED_PRODUCTS).orIgnore().execute();
  // Only once: a cart that was checked out stays empty.
  const isFirstStart = (inserted.raw as unknown[]).length > 0;
  if (isFirstStart)
    await manager.createQueryBuilder().insert().into(CartItem).values(carts).orIgnore().execute();
}
