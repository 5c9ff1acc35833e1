import { BadRequestException, Injectable, NotFoundException } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import { Repository } from 'typeorm';
import { multiplyMoney } from '../money.js';
import { Product } from '../products/product.entity.js';
import { WalletService } from '../wallet/wallet.service.js';
import type { CreateOrderDto } from './create-order.dto.js';
import { Order } from './order.entity.js';

/** Takes orders. */
@Injectable()
export class OrdersService {
  constructor(
    @InjectRepository(Order) private readonly orders: Repository<Order>,
    @InjectRepository(Product) private readonly products: Repository<Product>,
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
  async create(clientId: string, { product_id, denomination, quantity }: CreateOrderDto): Promise<Order> {
    const product = await this.products.findOneBy({ id: product_id });
    if (product === null) throw new NotFoundException(`There is no product ${product_id}`);
    if (!product.denominations.includes(denomination)) {
      throw new BadRequestException(`Product ${product_id} comes in ${product.denominations.join(', ')}`);
    }
    const total = multiplyMoney(denomination, quantity);
    const order = await this.orders.save(
      this.orders.create({
        clientId,
        productId: product_id,
        denomination,
        quantity,
        total,
        status: 'completed',
      }),
    );
    await this.wallets.charge(clientId, total);
    return order;
  }
}
