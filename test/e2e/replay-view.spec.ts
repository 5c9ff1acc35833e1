import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { Controller, Post, Render } from '@nestjs/common';
import { Idempotent } from 'nestjs-pg-idempotency';
import { randomUUID } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  ADAPTERS,
  startApp,
  type Adapter,
  type TestApp,
  type TestAppOptions,
} from '../helpers/application.js';
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

const rendered: Receipt[] = [];

function render(model: Receipt): string {
  rendered.push(model);
  return `<h1>Receipt ${model.number}</h1>`;
}

type TestNest = Parameters<NonNullable<TestAppOptions['configure']>>[0];

interface Reply {
  type(mediaType: string): this;
  send(body: string): unknown;
}

interface FastifyInstance {
  decorateReply(name: string, method: (this: Reply, template: string, model: Receipt) => unknown): void;
}

/** The smallest engine each adapter accepts; on Fastify it stands for the plugin `@fastify/view`. */
function addViewEngine(nest: TestNest, adapter: Adapter, views: string): void {
  if (adapter === 'express') {
    nest.setBaseViewsDir(views);
    nest.setViewEngine('stub');
    nest.engine('stub', (_path: string, model: Receipt, done: (error: null, html: string) => void) =>
      done(null, render(model)),
    );
  } else {
    const fastify = nest.getHttpAdapter().getInstance() as unknown as FastifyInstance;
    fastify.decorateReply('view', function (_template, model) {
      return this.type('text/html; charset=utf-8').send(render(model));
    });
  }
}

describe.each(ADAPTERS)('a replay of a rendered view (%s)', (adapter) => {
  let views: string;
  let database: TestDatabase;
  let app: TestApp;

  beforeAll(async () => {
    rendered.length = 0;
    views = await mkdtemp(join(tmpdir(), 'views-'));
    await writeFile(join(views, 'receipt.stub'), '');
    database = await createTestDatabase();
    app = await startApp({
      adapter,
      databaseUrl: database.url,
      controllers: [ReceiptsController],
      configure: (nest) => addViewEngine(nest, adapter, views),
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
