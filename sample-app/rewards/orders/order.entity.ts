import { Column, CreateDateColumn, Entity, ForeignKey, Index, PrimaryGeneratedColumn } from 'typeorm';
import { ApiClient } from '../../auth/api-client.entity.js';
import { MONEY_COLUMN } from '../money.js';
import { Product } from '../products/product.entity.js';

/** A client's purchase. */
@Entity('orders')
@Index('orders_client_id_created_at_idx', ['clientId', 'createdAt'])
export class Order {
  @PrimaryGeneratedColumn('uuid')
  id!: string;

  @Column('uuid', { name: 'client_id' })
  @ForeignKey(() => ApiClient, { name: 'orders_client_id_fkey' })
  clientId!: string;

  @Column('integer', { name: 'product_id' })
  @ForeignKey(() => Product, { name: 'orders_product_id_fkey' })
  productId!: number;

  @Column('integer')
  denomination!: number;

  @Column('integer')
  quantity!: number;

  @Column(MONEY_COLUMN)
  total!: string;

  @Column('text')
  status!: string;

  @CreateDateColumn({ name: 'created_at', type: 'timestamptz' })
  createdAt!: Date;
}
