import { Column, CreateDateColumn, Entity, ForeignKey, PrimaryGeneratedColumn } from 'typeorm';
import { ApiClient } from '../../auth/api-client.entity.js';
import { MONEY_COLUMN } from '../money.js';

/** Money that a client has withdrawn. */
@Entity('payouts')
export class Payout {
  @PrimaryGeneratedColumn('uuid')
  id!: string;

  @Column('uuid', { name: 'client_id' })
  @ForeignKey(() => ApiClient, { name: 'payouts_client_id_fkey' })
  clientId!: string;

  @Column(MONEY_COLUMN)
  amount!: string;

  @Column('text')
  status!: string;

  @CreateDateColumn({ name: 'created_at', type: 'timestamptz' })
  createdAt!: Date;
}
