import { Injectable, type OnModuleInit } from '@nestjs/common';
import { InjectDataSource } from '@nestjs/typeorm';
import type { DataSource, EntityManager } from 'typeorm';
import { ApiClient } from '../rewards/auth/api-client.entity.js';
import { sha256 } from '../rewards/auth/sha256.js';
import { Product } from '../rewards/products/product.entity.js';
import { Wallet } from '../rewards/wallet/wallet.entity.js';
import { SEEDED_CLIENTS, SEEDED_PRODUCTS, SEEDED_WALLET } from './seeds.js';

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
  await manager.createQueryBuilder().insert().into(ApiClient).values(clients).orIgnore().execute();
  await manager.createQueryBuilder().insert().into(Wallet).values(wallets).orIgnore().execute();
  await manager.createQueryBuilder().insert().into(Product).values(SEEDED_PRODUCTS).orIgnore().execute();
}
