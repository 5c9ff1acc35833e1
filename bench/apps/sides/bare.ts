import { Body, Controller, Post } from '@nestjs/common';
import { DataSource } from 'typeorm';
import { placeOrder, type Order, type PlaceOrder } from '../shop.js';
import type { Side } from '../side.js';

@Controller('orders')
class BareController {
  constructor(private readonly dataSource: DataSource) {}

  @Post()
  create(@Body() order: PlaceOrder): Promise<Order> {
    return placeOrder(this.dataSource, order);
  }
}

/** No idempotency: what everything else is measured against. */
export const bare: Side = () => ({ controllers: [BareController] });
