import { Column, CreateDateColumn, Entity, ForeignKey, Index, PrimaryGeneratedColumn } from 'typeorm';
import { ApiClient } from '../../auth/api-client.entity.js';

/** What a parcel is made of. */
export interface ShippingItem {
  readonly sku: string;
  readonly quantity: number;
}

/** Something to ship. */
@Entity('shipping_orders')
@Index('shipping_orders_client_id_created_at_idx', ['clientId', 'createdAt'])
export class ShippingOrder {
  @PrimaryGeneratedColumn('uuid')
  id!: string;

  @Column('uuid', { name: 'client_id' })
  @ForeignKey(() => ApiClient, { name: 'shipping_orders_client_id_fkey' })
  clientId!: string;

  @Column('text')
  reference!: string;

  @Column('jsonb')
  items!: ShippingItem[];

  @Column('text')
  status!: 'created' | 'voided';

  @CreateDateColumn({ name: 'created_at', type: 'timestamptz' })
  createdAt!: Date;
}
