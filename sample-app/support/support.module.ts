import { Module } from '@nestjs/common';
import { TypeOrmModule } from '@nestjs/typeorm';
import { AuthModule } from '../auth/auth.module.js';
import { Message } from './messages/message.entity.js';
import { MessagesController } from './messages/messages.controller.js';
import { Ticket } from './tickets/ticket.entity.js';
import { TicketsController } from './tickets/tickets.controller.js';
import { TicketsService } from './tickets/tickets.service.js';

/** The support API: tickets and messages, with an optional key on everything that changes them. */
@Module({
  imports: [AuthModule, TypeOrmModule.forFeature([Message, Ticket])],
  controllers: [MessagesController, TicketsController],
  providers: [TicketsService],
  exports: [TicketsService],
})
export class SupportModule {}
