import { Injectable } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import { Repository } from 'typeorm';
import { multiplyMoney, sumMoney } from '../money.js';
import { ProductsService } from '../products/products.service.js';
import { WalletService } from '../wallet/wallet.service.js';
import type { CreateOrderDto } from './create-order.dto.js';
import { Order } from './order.entity.js';

/** Takes orders. */
@Injectable()
export class OrdersService {
  constructor(
    @InjectRepository(Order) private readonly orders: Repository<Order>,
    private readonly products: ProductsService,
    private readonly wallets: WalletService,
  ) {}

  /** The client's orders, newest first. */
  async list(clientId: string): Promise<Order[]> {
    return this.orders.find({ where: { clientId }, order: { createdAt: 'DESC', id: 'ASC' } });
  }

  /**
   * Creates an order, and pays for it out of the client's wallet. When that fails, the caller's transaction is
   * what takes the order back.
   */
  async create(clientId: string, item: CreateOrderDto): Promise<Order> {
    await this.products.requireAll([item]);
    const order = await this.orders.save(this.#order(clientId, item));
    await this.wallets.charge(clientId, order.total);
    return order;
  }

  /** The same for several things at once: all of them or none. */
  async createAll(clientId: string, items: readonly CreateOrderDto[]): Promise<Order[]> {
    await this.products.requireAll(items);
    const orders = await this.orders.save(items.map((item) => this.#order(clientId, item)));
    await this.wallets.charge(clientId, sumMoney(orders.map(({ total }) => total)));
    return orders;
  }

  #order(clientId: string, { product_id: productId, denomination, quantity }: CreateOrderDto): Order {
    const total = multiplyMoney(denomination, quantity);
    return this.orders.create({ clientId, productId, denomination, quantity, total, status: 'completed' });
  }
}
