import { Module } from '@nestjs/common';
import { TypeOrmModule } from '@nestjs/typeorm';
import { ApiClient } from './auth/api-client.entity.js';
import { ApiKeyGuard } from './auth/api-key.guard.js';
import { Order } from './orders/order.entity.js';
import { OrdersController } from './orders/orders.controller.js';
import { OrdersService } from './orders/orders.service.js';
import { Payout } from './payouts/payout.entity.js';
import { PayoutsController } from './payouts/payouts.controller.js';
import { PayoutsService } from './payouts/payouts.service.js';
import { Product } from './products/product.entity.js';
import { WalletController } from './wallet/wallet.controller.js';
import { Wallet } from './wallet/wallet.entity.js';
import { WalletService } from './wallet/wallet.service.js';

/** The rewards API: orders and payouts, paid out of the client's wallet. */
@Module({
  imports: [TypeOrmModule.forFeature([ApiClient, Order, Payout, Product, Wallet])],
  controllers: [OrdersController, PayoutsController, WalletController],
  providers: [ApiKeyGuard, OrdersService, PayoutsService, WalletService],
})
export class RewardsModule {}
