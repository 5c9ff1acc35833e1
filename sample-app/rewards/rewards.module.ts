import { Module } from '@nestjs/common';
import { TypeOrmModule } from '@nestjs/typeorm';
import { AuthModule } from '../auth/auth.module.js';
import { CartItem } from './cart/cart-item.entity.js';
import { CartController } from './cart/cart.controller.js';
import { CartService } from './cart/cart.service.js';
import { Order } from './orders/order.entity.js';
import { OrdersController } from './orders/orders.controller.js';
import { OrdersService } from './orders/orders.service.js';
import { Payout } from './payouts/payout.entity.js';
import { PayoutsController } from './payouts/payouts.controller.js';
import { PayoutsService } from './payouts/payouts.service.js';
import { Product } from './products/product.entity.js';
import { ProductsService } from './products/products.service.js';
import { WalletController } from './wallet/wallet.controller.js';
import { Wallet } from './wallet/wallet.entity.js';
import { WalletService } from './wallet/wallet.service.js';

/** The rewards API: orders, payouts and carts, paid out of the client's wallet. */
@Module({
  imports: [AuthModule, TypeOrmModule.forFeature([CartItem, Order, Payout, Product, Wallet])],
  controllers: [CartController, OrdersController, PayoutsController, WalletController],
  providers: [CartService, OrdersService, PayoutsService, ProductsService, WalletService],
})
export class RewardsModule {}
