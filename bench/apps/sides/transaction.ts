import { Body, Controller, Post } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import {
  clientFromHeader,
  IdempotencyModule,
  Idempotent,
  type IdempotencyModuleOptions,
} from 'nestjs-pg-idempotency';
import { DataSource, Repository } from 'typeorm';
import { Order, placeOrder, Wallet, type PlaceOrder } from '../shop.js';
import type { AppSettings, Side, SideModule } from '../side.js';
import { TUNING } from '../tuning.js';
import { ExtrasController } from '../extras.controller.js';

@Controller('orders')
class TransactionController {
  constructor(
    @InjectRepository(Wallet) private readonly wallets: Repository<Wallet>,
    @InjectRepository(Order) private readonly orders: Repository<Order>,
  ) {}

  @Post()
  @Idempotent()
  async create(@Body() order: PlaceOrder): Promise<Order> {
    await this.wallets.decrement({ id: order.wallet }, 'balance', order.amount);
    return this.orders.save({ ...order });
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

function withLibrary(
  controllers: SideModule['controllers'],
  { purgeTimer = true }: AppSettings,
  options: Partial<IdempotencyModuleOptions> = {},
): SideModule {
  const library = IdempotencyModule.forRoot({
    client: clientFromHeader('X-API-Key'),
    ...(purgeTimer ? {} : { purge: false }),
    ...options,
  });
  return { imports: [library], controllers };
}

/** The handler relies on the library's transaction. */
export const transaction: Side = (settings) =>
  withLibrary([TransactionController, ExtrasController], settings);

/** The same with all that makes it faster. */
export const transactionTuned: Side = (settings) =>
  withLibrary([TransactionController, ExtrasController], settings, TUNING);

/** The bare handler with nothing changed but the decorator: its own transaction becomes a savepoint. */
export const transactionNested: Side = (settings) => withLibrary([NestedController], settings);
