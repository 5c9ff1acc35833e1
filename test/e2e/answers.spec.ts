import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import {
  Body,
  Catch,
  Controller,
  Header,
  HttpCode,
  HttpException,
  Post,
  UseFilters,
  type ArgumentsHost,
  type ExceptionFilter,
} from '@nestjs/common';
import { Idempotent, type IdempotencyError } from 'nestjs-pg-idempotency';
import { randomUUID } from 'node:crypto';
import { ADAPTERS, startApp, type TestApp } from '../helpers/application.js';
import { deferred, type Deferred } from '../helpers/conditions.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import type { HttpResponse } from '../helpers/http.js';
import { expectReplay, postWithKey } from '../helpers/replay.js';

let runs = 0;
let entered: Deferred<void>;
let gate: Deferred<void> | undefined;
/** What the formatter was given. */
let formatted: IdempotencyError[] = [];

function answer(): object {
  runs += 1;
  return { id: randomUUID() };
}

@Catch(HttpException)
class EnvelopeFilter implements ExceptionFilter {
  catch({ message }: HttpException, host: ArgumentsHost): void {
    const response = host
      .switchToHttp()
      .getResponse<{ status(code: number): { send(body: object): void } }>();
    response.status(200).send({ ok: false, message });
  }
}

@Controller('answers')
@Idempotent({ answers: { replay: 200, reused: 409 }, whenInProgress: 'reject' })
class AnswersController {
  @Post('created')
  created(): object {
    return answer();
  }

  @Post('original')
  @Idempotent({ answers: { replay: 'original' } })
  original(): object {
    return answer();
  }

  @Post('accepted')
  @Idempotent({ answers: { replay: 202, reused: 422 } })
  accepted(): object {
    return answer();
  }

  @Post('nothing')
  @HttpCode(204)
  nothing(): void {
    runs += 1;
  }

  @Post('reset')
  @HttpCode(205)
  reset(): void {
    runs += 1;
  }

  @Post('part')
  @HttpCode(206)
  @Header('Content-Range', 'bytes 0-3/10')
  part(): string {
    runs += 1;
    return 'part';
  }

  @Post('empty')
  @Header('Location', '/things/1')
  empty(): void {
    runs += 1;
  }

  @Post('elsewhere')
  @HttpCode(303)
  @Header('Location', '/things/1')
  elsewhere(): void {
    runs += 1;
  }

  @Post('failed')
  failed(@Body() { status = 402 }: { status?: number }): never {
    runs += 1;
    throw new HttpException({ why: 'no money' }, status);
  }

  /** An error that the application tells with a status of success. */
  @Post('enveloped')
  @UseFilters(EnvelopeFilter)
  @Idempotent({ answers: { replay: 202 } })
  enveloped(): never {
    runs += 1;
    throw new HttpException('no money', 402);
  }

  @Post('running')
  @Idempotent({
    answers: { inProgress: 425 },
    errors: (error) => {
      formatted.push(error);
      return { body: { code: error.code, status: error.status } };
    },
  })
  async running(): Promise<object> {
    entered.resolve();
    await gate?.promise;
    return answer();
  }
}

describe.each(ADAPTERS)('statuses that a route chooses (%s)', (adapter) => {
  let database: TestDatabase;
  let app: TestApp;

  beforeAll(async () => {
    database = await createTestDatabase();
    app = await startApp({
      adapter,
      databaseUrl: database.url,
      controllers: [AnswersController],
      idempotency: { answers: { inProgress: 503 } },
    });
  });

  beforeEach(async () => {
    runs = 0;
    entered = deferred();
    gate = undefined;
    formatted = [];
    await database.query('TRUNCATE idempotency_records');
  });

  afterAll(async () => {
    await app.close();
    await database.drop();
  });

  const send = (route: string, body: unknown = {}): Promise<HttpResponse> =>
    postWithKey(`${app.url}/answers/${route}`, 'one', body);

  it.each([
    ['created', 201, 200],
    ['accepted', 201, 202],
    ['empty', 201, 200],
  ])('a replay of %s, which was %i, is %i with the same body and headers', async (route, first, second) => {
    const original = await send(route);
    const replay = await send(route);
    expect([original.status, replay.status]).toEqual([first, second]);
    expectReplay(original, { ...replay, status: original.status });
    expect(runs).toBe(1);
  });

  it.each([
    ['original', 201],
    ['nothing', 204],
    ['reset', 205],
    ['part', 206],
    ['elsewhere', 303],
    ['failed', 402],
    ['enveloped', 200],
  ])('a replay of %s stays %i', async (route, status) => {
    const original = await send(route);
    expect(original.status).toBe(status);
    expectReplay(original, await send(route));
    expect(runs).toBe(1);
  });

  it.each([
    ['created', 409],
    ['accepted', 422],
  ])('a key of %s that was used for another request is answered %i', async (route, status) => {
    await send(route);
    const refusal = await send(route, { another: 'body' });
    expect(refusal.status).toBe(status);
    expect(refusal.json()).toMatchObject({ status, code: 'IDEMPOTENCY_KEY_REUSED' });
    expect(runs).toBe(1);
  });

  it('are known to the formatter', async () => {
    gate = deferred();
    const first = send('running');
    await entered.promise;
    const duplicate = await send('running');
    gate.resolve();
    await first;
    const reused = await send('running', { another: 'body' });
    expect([duplicate.status, duplicate.json()]).toEqual([
      425,
      { code: 'IDEMPOTENCY_IN_PROGRESS', status: 425 },
    ]);
    expect([reused.status, reused.json()]).toEqual([409, { code: 'IDEMPOTENCY_KEY_REUSED', status: 409 }]);
    expect(formatted[0]).toMatchObject({ retryAfter: expect.any(Number) });
    expect(duplicate.headers['retry-after']).toMatch(/^\d+$/);
  });
});
