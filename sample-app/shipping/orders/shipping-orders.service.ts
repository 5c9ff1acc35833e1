import { HttpStatus, Injectable } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import { In, Repository } from 'typeorm';
import { orderNotFound, ShippingException } from '../shipping.exception.js';
import { ShippingOrder, type ShippingItem } from './shipping-order.entity.js';

/** Takes shipping orders, and takes them back. */
@Injectable()
export class ShippingOrdersService {
  constructor(@InjectRepository(ShippingOrder) private readonly orders: Repository<ShippingOrder>) {}

  /** The client's orders, oldest first. */
  async list(clientId: string): Promise<ShippingOrder[]> {
    return this.orders.find({ where: { clientId }, order: { createdAt: 'ASC', id: 'ASC' } });
  }

  async create(clientId: string, reference: string, items: ShippingItem[]): Promise<ShippingOrder> {
    return this.orders.save(this.orders.create({ clientId, reference, items, status: 'created' }));
  }

  /** One statement looks and voids, so that of two requests at once only one voids. */
  async void(clientId: string, id: string): Promise<ShippingOrder> {
    const { affected } = await this.orders.update({ id, clientId, status: 'created' }, { status: 'voided' });
    const order = await this.orders.findOneBy({ id, clientId });
    if (!order) throw orderNotFound(id);
    if (affected !== 1) {
      throw new ShippingException(
        HttpStatus.CONFLICT,
        'ORDER_ALREADY_VOIDED',
        `Order ${id} is voided already`,
      );
    }
    return order;
  }

  /**
   * @throws ShippingException for the first of the orders that the client does not have.
   */
  async requireAll(clientId: string, ids: readonly string[]): Promise<void> {
    const found = new Set((await this.orders.findBy({ clientId, id: In(ids) })).map(({ id }) => id));
    const missing = ids.find((id) => !found.has(id.toLowerCase()));
    if (missing !== undefined) throw orderNotFound(missing);
  }
}
