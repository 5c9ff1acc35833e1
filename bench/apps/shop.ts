import type { DataSource, EntityManager } from 'typeorm';
import { Column, CreateDateColumn, Entity, PrimaryColumn, PrimaryGeneratedColumn } from 'typeorm';

/** Wallets that orders are spread over, so that requests do not wait for each other's row locks. */
export const WALLETS = 1000;

/** Who pays. */
@Entity('wallets')
export class Wallet {
  @PrimaryColumn('int')
  id!: number;

  @Column('numeric')
  balance!: string;
}

/** What is bought. */
@Entity('orders')
export class Order {
  @PrimaryGeneratedColumn('identity', { type: 'bigint' })
  id!: string;

  @Column('int')
  wallet!: number;

  @Column('int')
  amount!: number;

  @Column('text')
  reference!: string;

  @CreateDateColumn({ name: 'created_at', type: 'timestamptz' })
  createdAt!: Date;
}

/** The body of a request. */
export interface PlaceOrder {
  readonly wallet: number;
  readonly amount: number;
  readonly reference: string;
}

/** The handler as it is without this library: its own transaction around its two writes. */
export function placeOrder(dataSource: DataSource, order: PlaceOrder): Promise<Order> {
  return dataSource.transaction((manager) => writeOrder(manager, order));
}

/** The two writes, in whatever transaction the manager is in. */
export async function writeOrder(manager: EntityManager, order: PlaceOrder): Promise<Order> {
  await manager.decrement(Wallet, { id: order.wallet }, 'balance', order.amount);
  return manager.save(Order, { ...order });
}
