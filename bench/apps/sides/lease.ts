import { Body, Controller, Post } from '@nestjs/common';
import {
  clientFromHeader,
  CurrentExecution,
  IdempotencyModule,
  Idempotent,
  type IdempotencyExecution,
} from 'nestjs-pg-idempotency';
import { writeOrder, type Order, type PlaceOrder } from '../shop.js';
import type { Side } from '../side.js';

@Controller('orders')
class LeaseController {
  @Post()
  @Idempotent({ mode: 'lease' })
  create(@Body() order: PlaceOrder, @CurrentExecution() execution: IdempotencyExecution): Promise<Order> {
    return execution.transaction((manager) => writeOrder(manager, order));
  }
}

/** The claim is committed before the handler, whose writes are fenced. */
export const lease: Side = () => ({
  imports: [IdempotencyModule.forRoot({ client: clientFromHeader('X-API-Key') })],
  controllers: [LeaseController],
});
