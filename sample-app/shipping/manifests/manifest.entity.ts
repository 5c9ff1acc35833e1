import { Column, CreateDateColumn, Entity, ForeignKey, PrimaryGeneratedColumn } from 'typeorm';
import { ApiClient } from '../../auth/api-client.entity.js';

/** Orders that are handed to the carrier together. */
@Entity('shipping_manifests')
export class Manifest {
  @PrimaryGeneratedColumn('uuid')
  id!: string;

  @Column('uuid', { name: 'client_id' })
  @ForeignKey(() => ApiClient, { name: 'shipping_manifests_client_id_fkey' })
  clientId!: string;

  @Column('uuid', { name: 'order_ids', array: true })
  orderIds!: string[];

  @CreateDateColumn({ name: 'created_at', type: 'timestamptz' })
  createdAt!: Date;
}
