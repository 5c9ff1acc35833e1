import { Body, Controller, Get, Post, UseGuards } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';
import { Idempotent } from 'nestjs-pg-idempotency';
import { ApiSecretGuard } from '../../auth/api-secret.guard.js';
import { ClientId } from '../../auth/client-id.decorator.js';
import { REWARDS_IDEMPOTENCY } from '../rewards.idempotency.js';
import { CreateOrderDto } from './create-order.dto.js';
import { orderResponse, type OrderResponse } from './order-response.js';
import { OrdersService } from './orders.service.js';

/** `/api/v1/orders`, and the same from the client portal: each path is an endpoint of its own. */
@ApiTags('rewards')
@Controller(['api/v1/orders', 'client/api/orders'])
@UseGuards(ApiSecretGuard)
export class OrdersController {
  constructor(private readonly orders: OrdersService) {}

  @Get()
  async list(@ClientId() clientId: string): Promise<OrderResponse[]> {
    const orders = await this.orders.list(clientId);
    return orders.map(orderResponse);
  }

  @Post()
  @Idempotent(REWARDS_IDEMPOTENCY)
  async create(@ClientId() clientId: string, @Body() body: CreateOrderDto): Promise<OrderResponse> {
    return orderResponse(await this.orders.create(clientId, body));
  }
}
