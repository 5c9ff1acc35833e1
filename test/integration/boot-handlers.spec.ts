import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { Controller, Get, Post, Scope, type Type } from '@nestjs/common';
import { Idempotent } from 'nestjs-pg-idempotency';
import { startApp, type TestApp } from '../helpers/application.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson, sendRequest } from '../helpers/http.js';

@Idempotent()
class MarkedBase {}

class BaseWithMarkedHandler {
  @Post()
  @Idempotent()
  create(): string {
    return 'base';
  }
}

describe('boot refuses handlers whose entry nobody would note', () => {
  let database: TestDatabase;
  const apps: TestApp[] = [];

  beforeAll(async () => {
    database = await createTestDatabase();
  });

  afterEach(() => Promise.all(apps.splice(0).map((app) => app.close())));

  afterAll(() => database.drop());

  async function start(controller: Type): Promise<TestApp> {
    const app = await startApp({
      adapter: 'express',
      databaseUrl: database.url,
      controllers: [controller],
      poolSize: 2,
    });
    apps.push(app);
    return app;
  }

  async function refusal(controller: Type): Promise<string> {
    const outcome = await start(controller).catch((error: unknown) => error);
    expect(outcome).toBeInstanceOf(Error);
    return (outcome as Error).message;
  }

  it('of a subclass, where only the base class is marked', async () => {
    @Controller('things')
    class Things extends MarkedBase {
      @Post()
      create(): string {
        return 'x';
      }
    }
    expect(await refusal(Things)).toMatch(
      /^IDEMPOTENCY_HANDLER_UNSUPPORTED: Things\.create .*Repeat @Idempotent\(\) on Things\.create, or on Things/,
    );
  });

  it('that override a marked handler without a mark of their own', async () => {
    @Controller('things')
    class Things extends BaseWithMarkedHandler {
      @Post()
      override create(): string {
        return 'x';
      }
    }
    expect(await refusal(Things)).toMatch(
      /^IDEMPOTENCY_HANDLER_UNSUPPORTED: Things\.create .*Repeat @Idempotent\(\) on Things\.create/,
    );
  });

  it.each<[string, (handler: () => string, self: object) => () => string]>([
    ['binds', (handler, self) => handler.bind(self)],
    ['wraps', (handler) => () => handler()],
  ])('that the constructor %s', async (_how, replace) => {
    @Controller('things')
    class Things {
      constructor() {
        this.create = replace(this.create, this);
      }
      @Post()
      @Idempotent()
      create(): string {
        return 'x';
      }
    }
    expect(await refusal(Things)).toMatch(
      /^IDEMPOTENCY_HANDLER_UNSUPPORTED: Things\.create is replaced on the instance.*Nest calls handlers with their controller as `this`/,
    );
  });

  describe('of a controller made for every request, at the request', () => {
    it.each<[string, (handler: () => string, self: object) => () => string]>([
      ['binds', (handler, self) => handler.bind(self)],
      ['wraps', (handler) => () => handler()],
    ])('whose constructor %s them', async (_how, replace) => {
      let runs = 0;
      @Controller({ path: 'things', scope: Scope.REQUEST })
      class Things {
        constructor() {
          this.create = replace(this.create, this);
        }
        @Post()
        @Idempotent()
        create(): string {
          return `run ${++runs}`;
        }
      }
      const { url } = await start(Things);
      const { status } = await postJson(`${url}/things`, {}, { 'Idempotency-Key': 'key' });
      expect([status, runs]).toEqual([500, 0]);
    });
  });

  it.each([Scope.DEFAULT, Scope.REQUEST])(
    'but not what needs no protection on the same controller (scope %s)',
    async (scope) => {
      @Controller({ path: 'things', scope })
      class Things {
        constructor() {
          this.find = this.find.bind(this);
          if (scope === Scope.DEFAULT) this.list = () => 'listed';
        }
        @Get('one')
        find(): string {
          return 'found';
        }
        @Get()
        list(): string {
          return 'listed';
        }
        @Post()
        @Idempotent()
        create(): string {
          return 'made';
        }
      }
      const { url } = await start(Things);
      const answers = [
        await sendRequest(`${url}/things/one`),
        await sendRequest(`${url}/things`),
        await postJson(`${url}/things`, {}, { 'Idempotency-Key': `scope ${scope}` }),
      ];
      expect(answers.map(({ text }) => text)).toEqual(['found', 'listed', 'made']);
    },
  );
});
