import { Body, Controller, Get, Param, ParseUUIDPipe, Patch, Post, UseGuards } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';
import { Idempotent } from 'nestjs-pg-idempotency';
import { ApiKeyGuard } from '../../auth/api-key.guard.js';
import { ClientId } from '../../auth/client-id.decorator.js';
import { SUPPORT_IDEMPOTENCY } from '../support.idempotency.js';
import { ticketResponse, type TicketResponse } from './ticket-response.js';
import { CreateTicketDto, UpdateTicketDto } from './tickets.dto.js';
import { TicketsService } from './tickets.service.js';

/** `/tickets`: on a class, the protection is for every method that changes something. */
@ApiTags('support')
@Controller('tickets')
@UseGuards(ApiKeyGuard)
@Idempotent(SUPPORT_IDEMPOTENCY)
export class TicketsController {
  constructor(private readonly tickets: TicketsService) {}

  @Get()
  async list(@ClientId() clientId: string): Promise<TicketResponse[]> {
    return (await this.tickets.list(clientId)).map(ticketResponse);
  }

  @Post()
  async create(@ClientId() clientId: string, @Body() body: CreateTicketDto): Promise<TicketResponse> {
    return ticketResponse(await this.tickets.create(clientId, body));
  }

  @Patch(':id')
  async update(
    @ClientId() clientId: string,
    @Param('id', ParseUUIDPipe) id: string,
    @Body() body: UpdateTicketDto,
  ): Promise<TicketResponse> {
    return ticketResponse(await this.tickets.update(clientId, id, body));
  }
}
