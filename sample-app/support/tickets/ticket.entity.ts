import { Column, CreateDateColumn, Entity, ForeignKey, Index, PrimaryGeneratedColumn } from 'typeorm';
import { ApiClient } from '../../auth/api-client.entity.js';

/** Something that somebody needs help with. */
@Entity('tickets')
@Index('tickets_client_id_created_at_idx', ['clientId', 'createdAt'])
export class Ticket {
  @PrimaryGeneratedColumn('uuid')
  id!: string;

  @Column('uuid', { name: 'client_id' })
  @ForeignKey(() => ApiClient, { name: 'tickets_client_id_fkey' })
  clientId!: string;

  @Column('text')
  title!: string;

  @Column('text')
  priority!: string;

  @Column('text', { array: true })
  tags!: string[];

  @Column('text')
  status!: string;

  @CreateDateColumn({ name: 'created_at', type: 'timestamptz' })
  createdAt!: Date;
}
