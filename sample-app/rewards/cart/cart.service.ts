import { ConflictException, Injectable } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import { Repository } from 'typeorm';
import type { CreateOrderDto } from '../orders/create-order.dto.js';
import type { Order } from '../orders/order.entity.js';
import { OrdersService } from '../orders/orders.service.js';
import { ProductsService } from '../products/products.service.js';
import { CartItem } from './cart-item.entity.js';

/** Keeps carts, and turns them into orders. */
@Injectable()
export class CartService {
  constructor(
    @InjectRepository(CartItem) private readonly items: Repository<CartItem>,
    private readonly products: ProductsService,
    private readonly orders: OrdersService,
  ) {}

  /** What is in the client's cart. */
  async contents(clientId: string): Promise<CreateOrderDto[]> {
    const items = await this.items.find({
      where: { clientId },
      order: { productId: 'ASC', denomination: 'ASC' },
    });
    return items.map(({ productId, denomination, quantity }) => {
      return { product_id: productId, denomination, quantity };
    });
  }

  /** Puts these things, and nothing else, into the client's cart. */
  async replace(clientId: string, contents: readonly CreateOrderDto[]): Promise<void> {
    await this.products.requireAll(contents);
    await this.items.manager.transaction(async (manager) => {
      await manager.delete(CartItem, { clientId });
      const items = contents.map(({ product_id: productId, denomination, quantity }) => {
        return { clientId, productId, denomination, quantity };
      });
      await manager.save(CartItem, items);
    });
  }

  /**
   * Makes an order of each thing, by default of each thing in the cart, which is empty afterwards. When one of them
   * fails, the caller's transaction is what takes all of them back.
   */
  async checkout(clientId: string, named?: readonly CreateOrderDto[]): Promise<Order[]> {
    const contents = named ?? (await this.#empty(clientId));
    if (contents.length === 0) throw new ConflictException('The cart is empty');
    return this.orders.createAll(clientId, contents);
  }

  /** Reads by deleting, so that two checkouts at once cannot both order the same things. */
  async #empty(clientId: string): Promise<CreateOrderDto[]> {
    const deleted = await this.items
      .createQueryBuilder()
      .delete()
      .where({ clientId })
      .returning('product_id, denomination, quantity')
      .execute();
    return deleted.raw as CreateOrderDto[];
  }
}
