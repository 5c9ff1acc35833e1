import { Column, CreateDateColumn, Entity, ForeignKey, Index, PrimaryGeneratedColumn } from 'typeorm';
import { Ticket } from '../tickets/ticket.entity.js';

/** What somebody wrote about a ticket. */
@Entity('ticket_messages')
@Index('ticket_messages_ticket_id_created_at_idx', ['ticketId', 'createdAt'])
export class Message {
  @PrimaryGeneratedColumn('uuid')
  id!: string;

  @Column('uuid', { name: 'ticket_id' })
  @ForeignKey(() => Ticket, { name: 'ticket_messages_ticket_id_fkey' })
  ticketId!: string;

  @Column('text')
  body!: string;

  @CreateDateColumn({ name: 'created_at', type: 'timestamptz' })
  createdAt!: Date;
}
