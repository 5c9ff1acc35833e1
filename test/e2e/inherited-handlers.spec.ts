import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { Controller, Inject, Post } from '@nestjs/common';
import { Idempotent } from 'nestjs-pg-idempotency';
import { DataSource } from 'typeorm';
import { ADAPTERS, startApp, type TestApp } from '../helpers/application.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson } from '../helpers/http.js';
import { createShop, Order, resetShop, shopState } from '../helpers/shop.js';

class Shop {
  @Inject(DataSource) readonly dataSource!: DataSource;

  order(item: string): Promise<Order> {
    return this.dataSource.getRepository(Order).save({ item, price: 10 });
  }
}

class BaseWithMarkedHandler extends Shop {
  @Post()
  @Idempotent()
  create(): Promise<Order> {
    return this.order('of the base');
  }
}

@Idempotent()
class MarkedBase extends Shop {
  @Post()
  create(): Promise<Order> {
    return this.order('of the marked base');
  }
}

@Controller('inherits-handler')
class InheritsHandlerController extends BaseWithMarkedHandler {}

@Controller('inherits-class')
class InheritsClassController extends MarkedBase {}

@Controller('overrides')
class OverridesController extends BaseWithMarkedHandler {
  @Post()
  @Idempotent()
  override create(): Promise<Order> {
    return this.order('of the subclass');
  }
}

@Controller('calls-super')
class CallsSuperController extends BaseWithMarkedHandler {
  @Post()
  @Idempotent()
  override create(): Promise<Order> {
    return super.create();
  }
}

@Idempotent()
@Controller('repeats-on-class')
class RepeatsOnClassController extends MarkedBase {
  @Post()
  override create(): Promise<Order> {
    return this.order('of the subclass');
  }
}

@Idempotent()
@Controller('marks-unmarked-base')
class MarksSubclassController extends BaseWithMarkedHandler {
  @Post()
  override create(): Promise<Order> {
    return this.order('of the subclass');
  }
}

/** As decorators for logging or metrics do. */
const Observed = (): MethodDecorator => (_target, _name, descriptor) => {
  const original = descriptor.value as (this: unknown, ...args: unknown[]) => unknown;
  const observed = function (this: unknown, ...args: unknown[]): unknown {
    return original.apply(this, args);
  };
  for (const key of Reflect.getMetadataKeys(original) as unknown[])
    Reflect.defineMetadata(key, Reflect.getMetadata(key, original), observed);
  descriptor.value = observed as never;
};

@Controller('wrapped')
class WrappedController extends Shop {
  @Observed()
  @Post()
  @Idempotent()
  create(): Promise<Order> {
    return this.order('observed');
  }
}

@Idempotent()
@Controller('wrapped-on-marked')
class WrappedOnMarkedController extends Shop {
  @Observed()
  @Post()
  create(): Promise<Order> {
    return this.order('observed');
  }
}

const ROUTES = {
  'inherits-handler': InheritsHandlerController,
  'inherits-class': InheritsClassController,
  overrides: OverridesController,
  'calls-super': CallsSuperController,
  'repeats-on-class': RepeatsOnClassController,
  'marks-unmarked-base': MarksSubclassController,
  wrapped: WrappedController,
  'wrapped-on-marked': WrappedOnMarkedController,
};

describe.each(ADAPTERS)('handlers of class hierarchies and under other decorators (%s)', (adapter) => {
  let database: TestDatabase;
  let app: TestApp;

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
    app = await startApp({ adapter, databaseUrl: database.url, controllers: Object.values(ROUTES) });
  });

  afterEach(() => resetShop(database));

  afterAll(async () => {
    await app.close();
    await database.drop();
  });

  it.each(Object.keys(ROUTES))('%s: has one effect, and is replayed', async (route) => {
    const send = (): ReturnType<typeof postJson> =>
      postJson(`${app.url}/${route}`, {}, { 'Idempotency-Key': 'one' });
    const [first, retry] = [await send(), await send()];
    expect([first.status, first.headers['idempotency-replayed']]).toEqual([201, undefined]);
    expect([retry.text, retry.headers['idempotency-replayed']]).toEqual([first.text, 'true']);
    expect(await shopState(database)).toMatchObject({ orders: 1, records: 1 });
  });
});
