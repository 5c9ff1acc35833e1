import { Body, Controller, Get, Post, Put, UseGuards } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';
import { Idempotent } from 'nestjs-pg-idempotency';
import { ApiSecretGuard } from '../../auth/api-secret.guard.js';
import { ClientId } from '../../auth/client-id.decorator.js';
import { sumMoney } from '../money.js';
import type { CreateOrderDto } from '../orders/create-order.dto.js';
import { orderResponse, type OrderResponse } from '../orders/order-response.js';
import { REWARDS_IDEMPOTENCY } from '../rewards.idempotency.js';
import { CartContentsDto, CheckoutDto } from './cart-contents.dto.js';
import { CartService } from './cart.service.js';

/** `/client/api/cart` */
@ApiTags('rewards')
@Controller('client/api/cart')
@UseGuards(ApiSecretGuard)
export class CartController {
  constructor(private readonly cart: CartService) {}

  @Get()
  async show(@ClientId() clientId: string): Promise<{ items: CreateOrderDto[] }> {
    return { items: await this.cart.contents(clientId) };
  }

  /** Idempotent by nature: it needs no key. */
  @Put()
  async replace(
    @ClientId() clientId: string,
    @Body() { items }: CartContentsDto,
  ): Promise<{ items: CreateOrderDto[] }> {
    await this.cart.replace(clientId, items);
    return { items: await this.cart.contents(clientId) };
  }

  @Post('checkout')
  @Idempotent(REWARDS_IDEMPOTENCY)
  async checkout(
    @ClientId() clientId: string,
    @Body() { items }: CheckoutDto = {},
  ): Promise<{ orders: OrderResponse[]; total: string }> {
    const orders = await this.cart.checkout(clientId, items);
    return { orders: orders.map(orderResponse), total: sumMoney(orders.map(({ total }) => total)) };
  }
}
