import { createRequire } from 'node:module';
import { join } from 'node:path';
import { Body, Controller, Post, type DynamicModule } from '@nestjs/common';
import { DataSource } from 'typeorm';
import { benchFolder } from '../../kit/places.js';
import { placeOrder, type Order, type PlaceOrder } from '../shop.js';
import type { Side } from '../side.js';

/** As much of the package as is used here: its own types are installed only where benchmarks run. */
interface NodeIdempotency {
  readonly NodeIdempotencyModule: { forRootAsync(options: object): DynamicModule };
  readonly Idempotent: (options?: object) => MethodDecorator;
}

/**
 * Its peers are Nest 9 and 10, but it runs unchanged on what every side here runs on: installed without its peers, it finds
 * the copy of Nest that the repository has.
 */
function load(): NodeIdempotency {
  const require = createRequire(join(benchFolder, 'package.json'));
  return require('@node-idempotency/nestjs') as NodeIdempotency;
}

/** The bare handler under the most used package, with its defaults. */
export const nodeIdempotencyRedis: Side = ({ redisUrl }) => {
  const { NodeIdempotencyModule, Idempotent } = load();

  @Controller('orders')
  class RedisController {
    constructor(private readonly dataSource: DataSource) {}

    @Post()
    @Idempotent()
    create(@Body() order: PlaceOrder): Promise<Order> {
      return placeOrder(this.dataSource, order);
    }
  }

  const storage = { adapter: 'redis', options: { url: redisUrl } };
  return { imports: [NodeIdempotencyModule.forRootAsync({ storage })], controllers: [RedisController] };
};
