import { Body, Controller, Post } from '@nestjs/common';
import { clientFromHeader, IdempotencyModule, Idempotent } from 'nestjs-pg-idempotency';
import { DataSource } from 'typeorm';
import { placeOrder, writeOrder, type Order, type PlaceOrder } from '../shop.js';
import type { AppSettings, Side, SideModule } from '../side.js';
import { ExtrasController } from '../extras.controller.js';

@Controller('orders')
class TransactionController {
  constructor(private readonly dataSource: DataSource) {}

  @Post()
  @Idempotent()
  create(@Body() order: PlaceOrder): Promise<Order> {
    return writeOrder(this.dataSource.manager, order);
  }
}

@Controller('orders')
class NestedController {
  constructor(private readonly dataSource: DataSource) {}

  @Post()
  @Idempotent()
  create(@Body() order: PlaceOrder): Promise<Order> {
    return placeOrder(this.dataSource, order);
  }
}

/** Nothing is set that would make it faster. */
function withLibrary(controllers: SideModule['controllers'], { purgeTimer = true }: AppSettings): SideModule {
  const library = IdempotencyModule.forRoot({
    client: clientFromHeader('X-API-Key'),
    ...(purgeTimer ? {} : { purge: false }),
  });
  return { imports: [library], controllers };
}

/** The handler relies on the library's transaction. */
export const transaction: Side = (settings) =>
  withLibrary([TransactionController, ExtrasController], settings);

/** The bare handler with nothing changed but the decorator: its own transaction becomes a savepoint. */
export const transactionNested: Side = (settings) => withLibrary([NestedController], settings);
