import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { Body, Controller, Post, Req, Res } from '@nestjs/common';
import { Idempotent } from 'nestjs-pg-idempotency';
import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { startApp, type TestApp } from '../helpers/application.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { expectReplay, postWithKey } from '../helpers/replay.js';

let inner: TestApp;
let calls: string[] = [];

@Controller()
@Idempotent()
class InnerController {
  @Post('orders')
  order(@Body() body: object): object {
    calls.push('inner');
    return { id: randomUUID(), body };
  }
}

@Controller()
@Idempotent()
class OuterController {
  /** As applications do that mount another one. */
  @Post('orders')
  forward(@Req() request: IncomingMessage, @Res() response: ServerResponse): void {
    calls.push('outer');
    const listen = inner.app.getHttpAdapter().getInstance() as unknown as (
      request: IncomingMessage,
      response: ServerResponse,
    ) => void;
    listen(request, response);
  }
}

describe('a protected handler that calls another application', () => {
  let databases: TestDatabase[];
  let outer: TestApp;

  beforeAll(async () => {
    databases = [await createTestDatabase(), await createTestDatabase()];
    inner = await startApp({
      adapter: 'express',
      databaseUrl: databases[0]!.url,
      controllers: [InnerController],
    });
    outer = await startApp({
      adapter: 'express',
      databaseUrl: databases[1]!.url,
      controllers: [OuterController],
    });
  });

  afterAll(async () => {
    await outer.close();
    await inner.close();
    for (const database of databases) await database.drop();
  });

  it('answers with what that one answers, whose handler is protected as well', async () => {
    calls = [];
    const send = () => postWithKey(`${outer.url}/orders`, 'forwarded', { amount: 1 });
    const first = await send();
    expect(first.status).toBe(201);
    expectReplay(first, await send());
    expect(calls).toEqual(['outer', 'inner']);
  });
});
