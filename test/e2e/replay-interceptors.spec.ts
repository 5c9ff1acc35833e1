import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import {
  Catch,
  ClassSerializerInterceptor,
  ConflictException,
  Controller,
  Injectable,
  Post,
  UseFilters,
  UseInterceptors,
  type ArgumentsHost,
  type CallHandler,
  type ExceptionFilter,
  type ExecutionContext,
  type NestInterceptor,
} from '@nestjs/common';
import { APP_FILTER, APP_INTERCEPTOR, BaseExceptionFilter } from '@nestjs/core';
import { Exclude } from 'class-transformer';
import { Idempotent } from 'nestjs-pg-idempotency';
import { randomUUID } from 'node:crypto';
import { map, type Observable } from 'rxjs';
import { ADAPTERS, startApp, type TestApp } from '../helpers/application.js';
import { createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson } from '../helpers/http.js';
import { expectReplay, RecordingLogger, sendTwice } from '../helpers/replay.js';

/** Who was called, in order. */
let calls: string[] = [];

function envelope(name: string): new () => NestInterceptor {
  @Injectable()
  class Envelope implements NestInterceptor {
    intercept(_context: ExecutionContext, next: CallHandler): Observable<unknown> {
      calls.push(name);
      return next.handle().pipe(map((data: unknown) => ({ [name]: randomUUID(), data })));
    }
  }
  return Envelope;
}

const GlobalEnvelope = envelope('global');
const AppEnvelope = envelope('application');
const ControllerEnvelope = envelope('controller');
const MethodEnvelope = envelope('method');

@Catch()
class GlobalFilter extends BaseExceptionFilter {
  override catch(exception: unknown, host: ArgumentsHost): void {
    calls.push('global filter');
    super.catch(exception, host);
  }
}

@Catch(ConflictException)
class MethodFilter extends BaseExceptionFilter implements ExceptionFilter {
  override catch(exception: unknown, host: ArgumentsHost): void {
    calls.push('method filter');
    super.catch(exception, host);
  }
}

class Account {
  readonly id = randomUUID();

  @Exclude()
  readonly password = 'the-secret-of-the-account';
}

@Controller('marked')
@Idempotent({ ttl: '1h' })
@UseInterceptors(ControllerEnvelope)
class MarkedController {
  @Post('twice')
  @UseInterceptors(MethodEnvelope)
  @Idempotent({ ttl: '2h' })
  markedTwice(): object {
    calls.push('handler');
    return { id: randomUUID() };
  }

  @Post('once')
  markedByItsController(): object {
    calls.push('handler');
    return { id: randomUUID() };
  }

  @Post('refusal')
  @UseFilters(MethodFilter)
  refusal(): never {
    calls.push('handler');
    throw new ConflictException({ id: randomUUID() });
  }

  @Idempotent()
  @Post('serialized')
  @UseInterceptors(ClassSerializerInterceptor)
  serialized(): Account {
    calls.push('handler');
    return new Account();
  }
}

describe.each(ADAPTERS)('a replay and what wraps handlers (%s)', (adapter) => {
  const logger = new RecordingLogger();
  let database: TestDatabase;
  let app: TestApp;

  beforeAll(async () => {
    database = await createTestDatabase();
    app = await startApp({
      adapter,
      databaseUrl: database.url,
      controllers: [MarkedController],
      providers: [
        { provide: APP_INTERCEPTOR, useClass: AppEnvelope },
        { provide: APP_FILTER, useClass: GlobalFilter },
      ],
      configure: (nest) => {
        nest.useLogger(logger);
        nest.useGlobalInterceptors(new GlobalEnvelope());
      },
    });
  });

  beforeEach(async () => {
    calls = [];
    await database.query('TRUNCATE idempotency_records');
  });

  afterAll(async () => {
    await app.close();
    await database.drop();
  });

  it('repeats the envelopes of global, controller and method level without asking them again', async () => {
    const [original, replay] = await sendTwice(`${app.url}/marked/twice`);
    expect(original.status).toBe(201);
    expect(Object.keys(original.json() as object)).toHaveLength(2);
    expectReplay(original, replay);
    expect(calls.filter((call) => call === 'handler')).toEqual(['handler']);
    expect(calls.slice(0, -1).sort()).toEqual(['application', 'controller', 'global', 'method']);
  });

  it('does not make a handler marked by its controller conflict with itself', async () => {
    const [original, replay] = await sendTwice(`${app.url}/marked/once`);
    expect(original.status).toBe(201);
    expectReplay(original, replay);
    expect(await database.query('SELECT endpoint FROM idempotency_records')).toEqual([
      { endpoint: 'POST /marked/once' },
    ]);
  });

  it('lets options of the method win over those of its controller', async () => {
    await sendTwice(`${app.url}/marked/twice`);
    await sendTwice(`${app.url}/marked/once`);
    const lifetimes = await database.query(
      `SELECT endpoint, extract(epoch FROM expires_at - completed_at)::float / 3600 AS hours
         FROM idempotency_records ORDER BY endpoint`,
    );
    expect(lifetimes).toEqual([
      { endpoint: 'POST /marked/once', hours: expect.closeTo(1, 3) },
      { endpoint: 'POST /marked/twice', hours: expect.closeTo(2, 3) },
    ]);
  });

  it('repeats an exception without asking a filter again', async () => {
    const [original, replay] = await sendTwice(`${app.url}/marked/refusal`);
    expect(original.status).toBe(409);
    expectReplay(original, replay);
    expect(calls.filter((call) => call === 'handler')).toEqual(['handler']);
    expect(calls.filter((call) => call.endsWith('filter'))).toEqual(['method filter']);
  });

  it('logs nothing', async () => {
    await postJson(`${app.url}/marked/nowhere`, {});
    logger.log('the recorder works');
    expect(logger.lines).toContainEqual(['the recorder works']);
    logger.lines.length = 0;
    for (const path of ['twice', 'once', 'refusal', 'serialized']) {
      const [, replay] = await sendTwice(`${app.url}/marked/${path}`);
      expect(replay.headers['idempotency-replayed']).toBe('true');
    }
    expect(logger.lines).toEqual([]);
  });

  it('has no field that the serializer excludes, and neither has the table', async () => {
    const [original, replay] = await sendTwice(`${app.url}/marked/serialized`);
    expectReplay(original, replay);
    expect(replay.text).toMatch(/"id"/);
    expect(replay.text).not.toMatch(/password|secret/);
    const [row] = await database.query<{ row: string }>(
      `SELECT idempotency_records::text || convert_from(response_body, 'UTF8') AS row FROM idempotency_records`,
    );
    expect(row!.row).toContain(original.text);
    expect(row!.row).not.toMatch(/password|secret/);
  });
});
