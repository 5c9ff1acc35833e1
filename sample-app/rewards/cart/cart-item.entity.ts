import { Column, Entity, ForeignKey, PrimaryColumn } from 'typeorm';
import { ApiClient } from '../../auth/api-client.entity.js';
import { Product } from '../products/product.entity.js';

/** Something that a client is about to order. */
@Entity('cart_items')
export class CartItem {
  @PrimaryColumn('uuid', { name: 'client_id' })
  @ForeignKey(() => ApiClient, { name: 'cart_items_client_id_fkey' })
  clientId!: string;

  @PrimaryColumn('integer', { name: 'product_id' })
  @ForeignKey(() => Product, { name: 'cart_items_product_id_fkey' })
  productId!: number;

  @PrimaryColumn('integer')
  denomination!: number;

  @Column('integer')
  quantity!: number;
}
