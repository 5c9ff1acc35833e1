import { Body, Controller, Get, Param, ParseUUIDPipe, Post, UseGuards } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';
import { InjectRepository } from '@nestjs/typeorm';
import { Idempotent } from 'nestjs-pg-idempotency';
import { Repository } from 'typeorm';
import { ApiKeyGuard } from '../../auth/api-key.guard.js';
import { ClientId } from '../../auth/client-id.decorator.js';
import { SUPPORT_IDEMPOTENCY } from '../support.idempotency.js';
import { TicketsService } from '../tickets/tickets.service.js';
import { CreateMessageDto } from './create-message.dto.js';
import { Message } from './message.entity.js';

/** A message as clients see it. */
interface MessageResponse {
  readonly id: string;
  readonly ticketId: string;
  readonly body: string;
  /** ISO 8601. */
  readonly createdAt: string;
}

/** `/tickets/{id}/messages` */
@ApiTags('support')
@Controller('tickets/:ticketId/messages')
@UseGuards(ApiKeyGuard)
@Idempotent(SUPPORT_IDEMPOTENCY)
export class MessagesController {
  constructor(
    @InjectRepository(Message) private readonly messages: Repository<Message>,
    private readonly tickets: TicketsService,
  ) {}

  @Get()
  async list(
    @ClientId() clientId: string,
    @Param('ticketId', ParseUUIDPipe) id: string,
  ): Promise<MessageResponse[]> {
    const { id: ticketId } = await this.tickets.find(clientId, id);
    const messages = await this.messages.find({
      where: { ticketId },
      order: { createdAt: 'ASC', id: 'ASC' },
    });
    return messages.map(messageResponse);
  }

  @Post()
  async create(
    @ClientId() clientId: string,
    @Param('ticketId', ParseUUIDPipe) id: string,
    @Body() { body }: CreateMessageDto,
  ): Promise<MessageResponse> {
    const { id: ticketId } = await this.tickets.find(clientId, id);
    return messageResponse(await this.messages.save(this.messages.create({ ticketId, body })));
  }
}

function messageResponse({ id, ticketId, body, createdAt }: Message): MessageResponse {
  return { id, ticketId, body, createdAt: createdAt.toISOString() };
}
