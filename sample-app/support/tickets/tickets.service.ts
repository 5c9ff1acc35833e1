import { Injectable, NotFoundException } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import { Repository } from 'typeorm';
import { Ticket } from './ticket.entity.js';
import type { CreateTicketDto, UpdateTicketDto } from './tickets.dto.js';

/** Opens tickets, and keeps them up to date. */
@Injectable()
export class TicketsService {
  constructor(@InjectRepository(Ticket) private readonly tickets: Repository<Ticket>) {}

  /** The client's tickets, oldest first. */
  async list(clientId: string): Promise<Ticket[]> {
    return this.tickets.find({ where: { clientId }, order: { createdAt: 'ASC', id: 'ASC' } });
  }

  async create(clientId: string, { title, priority, tags }: CreateTicketDto): Promise<Ticket> {
    return this.tickets.save(
      this.tickets.create({
        clientId,
        title,
        // Many clients send null for what their caller left out.
        priority: priority ?? 'normal',
        tags: tags ?? [],
        status: 'open',
      }),
    );
  }

  /**
   * @throws NotFoundException when the client has no such ticket.
   */
  async update(clientId: string, id: string, changes: UpdateTicketDto): Promise<Ticket> {
    const ticket = await this.find(clientId, id);
    return this.tickets.save(this.tickets.merge(ticket, changes));
  }

  /**
   * @throws NotFoundException when the client has no such ticket.
   */
  async find(clientId: string, id: string): Promise<Ticket> {
    const ticket = await this.tickets.findOneBy({ id, clientId });
    if (!ticket) throw new NotFoundException(`There is no ticket ${id}`);
    return ticket;
  }
}
