import { Inject } from '@nestjs/common';
import { Column, DataSource, Entity, PrimaryGeneratedColumn } from 'typeorm';
import type { TestDatabase } from './database.js';

/** Money that handlers take away. */
@Entity('wallets')
export class Wallet {
  @PrimaryGeneratedColumn()
  id!: number;

  @Column('int')
  balance!: number;
}

/** What handlers create. */
@Entity('orders')
export class Order {
  @PrimaryGeneratedColumn()
  id!: number;

  @Column('text')
  item!: string;

  @Column('int')
  price!: number;
}

/** What controllers extend whose handlers order. */
export class Shop {
  @Inject(DataSource) readonly dataSource!: DataSource;

  order(item = 'book'): Promise<Order> {
    return this.dataSource.getRepository(Order).save({ item, price: 10 });
  }
}

/** Creates the tables, with one wallet of 1000. */
export async function createShop(database: TestDatabase): Promise<void> {
  await database.query(
    'CREATE TABLE wallets (id serial PRIMARY KEY, balance int NOT NULL CHECK (balance >= 0))',
  );
  await database.query('CREATE TABLE orders (id serial PRIMARY KEY, item text NOT NULL, price int NOT NULL)');
  await database.query('INSERT INTO wallets (balance) VALUES (1000)');
}

/** Empties the tables, the records included, and fills the wallet again. */
export async function resetShop(database: TestDatabase): Promise<void> {
  await database.query('TRUNCATE orders, idempotency_records');
  await database.query('UPDATE wallets SET balance = 1000');
}

/** What the handlers have left behind. */
export async function shopState(
  database: TestDatabase,
): Promise<{ balance: number; orders: number; records: number }> {
  const [row] = await database.query<{ balance: number; orders: number; records: number }>(
    `SELECT (SELECT balance FROM wallets) AS balance, (SELECT count(*)::int FROM orders) AS orders,
            (SELECT count(*)::int FROM idempotency_records) AS records`,
  );
  return row!;
}
