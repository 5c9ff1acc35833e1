import { Check, Column, Entity, ForeignKey, PrimaryColumn } from 'typeorm';
import { ApiClient } from '../../auth/api-client.entity.js';
import { MONEY_COLUMN } from '../money.js';

/** What a client can spend. */
@Entity('wallets')
@Check('wallets_balance_check', 'balance >= 0')
export class Wallet {
  @PrimaryColumn('uuid', { name: 'client_id' })
  @ForeignKey(() => ApiClient, { name: 'wallets_client_id_fkey' })
  clientId!: string;

  @Column(MONEY_COLUMN)
  balance!: string;

  @Column('text')
  currency!: string;
}
