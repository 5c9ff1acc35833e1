import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { Controller, Post, Render } from '@nestjs/common';
import { Idempotent } from 'nestjs-pg-idempotency';
import { randomUUID } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startApp, type TestApp } from '../helpers/app.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { expectReplay, sendTwice } from '../helpers/replay.js';

interface Receipt {
  readonly number: string;
}

@Controller('receipts')
class ReceiptsController {
  @Post()
  @Render('receipt')
  @Idempotent()
  create(): Receipt {
    return { number: randomUUID() };
  }
}

// Express only: on Fastify a view goes the same way, and needs a plugin for its engine.
describe('a replay of a rendered view', () => {
  const rendered: Receipt[] = [];
  let views: string;
  let database: TestDatabase;
  let app: TestApp;

  beforeAll(async () => {
    views = await mkdtemp(join(tmpdir(), 'views-'));
    await writeFile(join(views, 'receipt.stub'), '');
    database = await createTestDatabase();
    app = await startApp({
      adapter: 'express',
      databaseUrl: database.url,
      controllers: [ReceiptsController],
      configure: (nest) => {
        nest.setBaseViewsDir(views);
        nest.setViewEngine('stub');
        nest.engine('stub', (_path: string, model: Receipt, done: (error: null, html: string) => void) => {
          rendered.push(model);
          done(null, `<h1>Receipt ${model.number}</h1>`);
        });
      },
    });
  });

  afterAll(async () => {
    await app.close();
    await database.drop();
    await rm(views, { recursive: true });
  });

  it('repeats the page without rendering it again', async () => {
    const [original, replay] = await sendTwice(`${app.url}/receipts`);
    expect(original.status).toBe(201);
    expect(original.text).toMatch(/^<h1>Receipt [0-9a-f-]{36}<\/h1>$/);
    expectReplay(original, replay);
    expect(rendered).toHaveLength(1);
  });
});
