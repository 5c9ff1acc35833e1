import { Body, Controller, Get, HttpCode, Post, UseGuards } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';
import { Idempotent } from 'nestjs-pg-idempotency';
import { ApiKeyGuard } from '../../auth/api-key.guard.js';
import { ClientId } from '../../auth/client-id.decorator.js';
import { success, type Envelope } from '../envelope.js';
import { SHIPPING_IDEMPOTENCY } from '../shipping.idempotency.js';
import type { ShippingOrder } from './shipping-order.entity.js';
import { CreateShippingOrderDto, VoidShippingOrderDto } from './shipping-orders.dto.js';
import { ShippingOrdersService } from './shipping-orders.service.js';

type OrderData = Pick<ShippingOrder, 'id' | 'reference' | 'status'>;

/** `/api/v1/orders/…` */
@ApiTags('shipping')
@Controller('api/v1/orders')
@UseGuards(ApiKeyGuard)
export class ShippingOrdersController {
  constructor(private readonly orders: ShippingOrdersService) {}

  @Get('created')
  async list(@ClientId() clientId: string): Promise<Envelope<OrderData[]>> {
    return success((await this.orders.list(clientId)).map(orderData));
  }

  @Post('create')
  @Idempotent(SHIPPING_IDEMPOTENCY)
  async create(
    @ClientId() clientId: string,
    @Body() { reference, items }: CreateShippingOrderDto,
  ): Promise<Envelope<OrderData>> {
    return success(orderData(await this.orders.create(clientId, reference, items)));
  }

  @Post('void')
  @HttpCode(200)
  @Idempotent(SHIPPING_IDEMPOTENCY)
  async void(
    @ClientId() clientId: string,
    @Body() { orderId }: VoidShippingOrderDto,
  ): Promise<Envelope<OrderData>> {
    return success(orderData(await this.orders.void(clientId, orderId)));
  }
}

function orderData({ id, reference, status }: ShippingOrder): OrderData {
  return { id, reference, status };
}
