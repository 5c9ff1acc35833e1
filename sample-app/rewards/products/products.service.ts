import { BadRequestException, Injectable, NotFoundException } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import { In, Repository } from 'typeorm';
import { Product } from './product.entity.js';

/** Knows what can be ordered. */
@Injectable()
export class ProductsService {
  constructor(@InjectRepository(Product) private readonly products: Repository<Product>) {}

  /**
   * Refuses the first of the items that cannot be ordered, after one query for all of them.
   *
   * @throws NotFoundException for a product that there is not.
   * @throws BadRequestException for a denomination that its product does not come in.
   */
  async requireAll(items: readonly { product_id: number; denomination: number }[]): Promise<void> {
    const found = await this.products.findBy({ id: In(items.map((item) => item.product_id)) });
    const denominations = new Map(found.map((product) => [product.id, product.denominations]));
    for (const { product_id: id, denomination } of items) {
      const offered = denominations.get(id);
      if (!offered) throw new NotFoundException(`There is no product ${id}`);
      if (!offered.includes(denomination)) {
        throw new BadRequestException(`Product ${id} comes in ${offered.join(', ')}`);
      }
    }
  }
}
