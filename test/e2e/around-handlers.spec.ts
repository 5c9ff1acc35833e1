import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import {
  All,
  Catch,
  ConflictException,
  Controller,
  Get,
  Injectable,
  Post,
  UseFilters,
  UseInterceptors,
  type ArgumentsHost,
  type CallHandler,
  type ExceptionFilter,
  type ExecutionContext,
  type NestInterceptor,
  type Type,
} from '@nestjs/common';
import { Idempotent } from 'nestjs-pg-idempotency';
import { from, lastValueFrom, type Observable } from 'rxjs';
import { ADAPTERS, startApp, type TestApp, type TestAppOptions } from '../helpers/application.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson, type HttpResponse } from '../helpers/http.js';
import { createShop, resetShop, Shop, shopState, type Order } from '../helpers/shop.js';

class Refusal extends Error {}

@Catch(Refusal)
class RefusalFilter implements ExceptionFilter {
  catch(_exception: Refusal, host: ArgumentsHost): void {
    const response = host
      .switchToHttp()
      .getResponse<{ status(code: number): { send(body: object): void } }>();
    response.status(418).send({ filtered: true });
  }
}

/** As limiters do: whoever has ended starts the next, in its own context. */
class Queue implements NestInterceptor {
  readonly #waiting: (() => void)[] = [];
  #isBusy = false;

  constructor(private readonly startsAt: number) {}

  intercept(_context: ExecutionContext, next: CallHandler): Observable<unknown> {
    return from(
      new Promise((resolve, reject) => {
        this.#waiting.push(() => {
          const ended = (): void => {
            this.#isBusy = false;
            this.#start();
          };
          lastValueFrom(next.handle()).finally(ended).then(resolve, reject);
        });
        if (this.#waiting.length >= this.startsAt) this.#start();
      }),
    );
  }

  #start(): void {
    if (this.#isBusy) return;
    const [first] = this.#waiting.splice(0, 1);
    this.#isBusy = first !== undefined;
    first?.();
  }
}

describe.each(ADAPTERS)('what applications put around their handlers (%s)', (adapter) => {
  let database: TestDatabase;
  let app: TestApp | undefined;

  beforeAll(async () => {
    database = await createTestDatabase();
    await createShop(database);
  });

  afterEach(async () => {
    await app?.close();
    app = undefined;
    await resetShop(database);
  });

  afterAll(() => database.drop());

  async function start(controllers: Type[], rest: Partial<TestAppOptions> = {}): Promise<void> {
    app = await startApp({ adapter, databaseUrl: database.url, controllers, poolSize: 4, ...rest });
  }

  const send = (path: string, key = 'one'): Promise<HttpResponse> =>
    postJson(`${app!.url}/${path}`, {}, { 'Idempotency-Key': key });

  it.each(['transaction', 'lease'] as const)(
    'a queue of interceptors runs each in its own transaction (mode %s)',
    async (mode) => {
      @Controller('queued')
      @UseInterceptors(new Queue(2))
      class QueuedController extends Shop {
        @Post()
        @Idempotent({ mode })
        create(): Promise<unknown> {
          return this.dataSource.query("INSERT INTO orders (item, price) VALUES ('queued', 1)");
        }
      }
      await start([QueuedController]);
      const answers = await Promise.all([send('queued', 'a'), send('queued', 'b')]);
      expect(answers.map(({ status }) => status)).toEqual([201, 201]);
      expect(await shopState(database)).toMatchObject({ orders: 2, records: 2 });
      const retries = await Promise.all([send('queued', 'a'), send('queued', 'b')]);
      expect(retries.map(({ headers }) => headers['idempotency-replayed'])).toEqual(['true', 'true']);
      expect(await shopState(database)).toMatchObject({ orders: 2, records: 2 });
    },
  );

  it('exception filters of a base class stay', async () => {
    @UseFilters(RefusalFilter)
    abstract class Base extends Shop {}
    @Controller('leaf')
    class LeafController extends Base {
      @Post()
      @Idempotent()
      create(): never {
        throw new Refusal();
      }
    }
    await start([LeafController]);
    const [first, retry] = [await send('leaf'), await send('leaf')];
    expect([first.status, first.json()]).toEqual([418, { filtered: true }]);
    expect([retry.status, retry.headers['idempotency-replayed']]).toEqual([418, 'true']);
  });

  it('an error that does not let itself be read is answered as without the library', async () => {
    class Detached extends Error {
      override get cause(): unknown {
        throw new Error('detached');
      }
    }
    @Controller('detached')
    class DetachedController extends Shop {
      @Post()
      @Idempotent()
      async create(): Promise<never> {
        await this.order();
        throw new Detached();
      }
    }
    await start([DetachedController]);
    expect((await send('detached')).status).toBe(500);
    expect(await shopState(database)).toMatchObject({ orders: 0, records: 0 });
  });

  it.each(['transaction', 'lease'] as const)(
    'an exception of the application stays what it is, whatever caused it (mode %s)',
    async (mode) => {
      @Controller('caused')
      class CausedController extends Shop {
        @Post()
        @Idempotent({ mode })
        create(): never {
          const cause = Object.assign(new Error('elsewhere'), { code: '40001', severity: 'ERROR' });
          throw new ConflictException('taken', { cause });
        }
      }
      await start([CausedController]);
      const [first, retry] = [await send('caused'), await send('caused')];
      expect([first.status, first.json()]).toEqual([409, expect.objectContaining({ message: 'taken' })]);
      expect([retry.text, retry.headers['idempotency-replayed']]).toEqual([first.text, 'true']);
    },
  );

  it('one function under two names needs no protection under either', async () => {
    const ping = function ping(): string {
      return 'pong';
    };
    const adding =
      (name: string): ClassDecorator =>
      (type) => {
        const descriptor = { value: ping, writable: true, configurable: true };
        Object.defineProperty(type.prototype, name, descriptor);
        Post('ping')(type.prototype as object, name, descriptor);
      };
    const make = (path: string, name: string): Type => {
      @adding(name)
      @Controller(path)
      class PingController extends Shop {
        @Post()
        @Idempotent()
        create(): Promise<Order> {
          return this.order();
        }
      }
      return PingController;
    };
    await start([make('one', 'pingOne'), make('two', 'pingTwo')]);
    for (const path of ['one/ping', 'two/ping']) expect((await send(path)).text).toBe('pong');
    for (const path of ['one', 'two']) expect((await send(path)).status).toBe(201);
  });

  describe('boot refuses a mark that would protect nothing', () => {
    @Idempotent()
    @Injectable()
    class MarkedService {
      pay(): number {
        return 1;
      }
    }

    class Payments {
      @Idempotent()
      pay(): number {
        return 1;
      }
    }

    @Idempotent()
    @Controller('all')
    class AllController {
      @All()
      create(): number {
        return 1;
      }
    }

    @Idempotent()
    @Controller('reading')
    class ReadingController {
      @Get()
      list(): string {
        return 'listed';
      }
    }

    it.each<[string, Partial<TestAppOptions>]>([
      ['of a provider', { providers: [MarkedService] }],
      ["of a provider's method", { providers: [Payments] }],
      ["of a factory's", { providers: [{ provide: 'payments', useFactory: () => new Payments() }] }],
      ['of a value', { providers: [{ provide: 'payments', useValue: new Payments() }] }],
      ['of a controller that answers every method', { controllers: [AllController] }],
    ])('%s', async (_what, options) => {
      await expect(start([], options)).rejects.toThrow(/^IDEMPOTENCY_HANDLER_UNSUPPORTED: /);
    });

    it('but not of a controller that only reads so far', async () => {
      await start([ReadingController]);
    });
  });
});
