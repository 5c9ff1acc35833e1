import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, jest } from '@jest/globals';
import {
  All,
  Controller,
  Get,
  Global,
  Head,
  Injectable,
  Module,
  Options,
  Patch,
  Post,
  Sse,
  type DynamicModule,
  type Type,
} from '@nestjs/common';
import { Test } from '@nestjs/testing';
import { getDataSourceToken, TypeOrmModule } from '@nestjs/typeorm';
import {
  Idempotent,
  IdempotencyModule,
  IdempotencyPurgeService,
  sharedClient,
  type IdempotencyModuleOptions,
  type IdempotencyOptionsFactory,
} from 'nestjs-pg-idempotency';
import { of, type Observable } from 'rxjs';
import { DataSource } from 'typeorm';
import { idempotencyDdl } from '../../migrations/index.js';
import { startApp, type TestApp, type TestAppOptions } from '../helpers/application.js';
import { eventually } from '../helpers/conditions.js';
import { createEmptyDatabase, createTestDatabase, type TestDatabase } from '../helpers/database.js';
import { postJson } from '../helpers/http.js';

const OPTIONS: IdempotencyModuleOptions = { client: sharedClient('tests'), purge: false };

@Controller('things')
class ThingsController {
  @Post()
  @Idempotent()
  create(): { made: true } {
    return { made: true };
  }
}

describe('boot', () => {
  let database: TestDatabase;
  const apps: TestApp[] = [];
  const databases: TestDatabase[] = [];

  beforeAll(async () => {
    database = await createTestDatabase();
  });

  afterEach(async () => {
    jest.restoreAllMocks();
    await Promise.all(apps.splice(0).map((app) => app.close()));
    await Promise.all(databases.splice(0).map((each) => each.drop()));
  });

  afterAll(() => database.drop());

  async function start(options: Partial<TestAppOptions>): Promise<TestApp> {
    const app = await startApp({
      adapter: 'express',
      databaseUrl: database.url,
      controllers: [ThingsController],
      poolSize: 2,
      ...options,
    });
    apps.push(app);
    return app;
  }

  /** Starts, expects a refusal, and returns it. */
  async function refusal(options: Partial<TestAppOptions>): Promise<Error & { code?: string }> {
    const outcome = await start(options).catch((error: unknown) => error);
    expect(outcome).toBeInstanceOf(Error);
    return outcome as Error;
  }

  const expectRuns = async (app: TestApp): Promise<void> => {
    const request = (): ReturnType<typeof postJson> =>
      postJson(`${app.url}/things`, {}, { 'Idempotency-Key': 'key' });
    const [first, retry] = [await request(), await request()];
    expect([first.status, retry.status, retry.headers['idempotency-replayed']]).toEqual([201, 201, 'true']);
  };

  async function emptyDatabase(): Promise<TestDatabase> {
    const created = await createEmptyDatabase();
    databases.push(created);
    return created;
  }

  const connectionsTo = async (name: string): Promise<number> => {
    const [row] = await database.query<{ count: number }>(
      "SELECT count(*)::int AS count FROM pg_stat_activity WHERE datname = $1 AND application_name = 'idempotency-test'",
      [name],
    );
    return row!.count;
  };

  describe('refuses handlers', () => {
    it.each<[string, MethodDecorator, RegExp]>([
      [
        '@Get()',
        Get('x'),
        /Remove the decorator, or make it a @Post\(\), @Put\(\), @Patch\(\) or @Delete\(\)/,
      ],
      ['@Head()', Head('x'), /Remove the decorator, or make it a @Post\(\)/],
      ['@Options()', Options('x'), /Remove the decorator, or make it a @Post\(\)/],
      ['@All()', All('x'), /answers every method with @All\(\)\. Give the methods .* handlers of their own/],
      ['@Sse()', Sse('x'), /is an @Sse\(\) handler.*Start the work with an idempotent POST/],
      [
        'no route',
        () => undefined,
        /is not an HTTP handler of a controller\. Move the decorator to the method with @Post/,
      ],
      [
        'a message pattern',
        metadata('microservices:pattern', ['x']),
        /handles messages.*Move the decorator to an HTTP handler/,
      ],
      ['a gateway message', metadata('websockets:message_mapping', true), /handles messages/],
    ])('of %s', async (_kind, route, remedy) => {
      @Controller('unsupported')
      class UnsupportedController {
        @route
        @Idempotent()
        handle(): Observable<string> {
          return of('x');
        }
      }
      const error = await refusal({ controllers: [UnsupportedController] });
      expect(error.message).toMatch(/^IDEMPOTENCY_HANDLER_UNSUPPORTED: UnsupportedController\.handle /);
      expect(error.message).toMatch(remedy);
    });

    it('whatever the order of the decorators', async () => {
      @Controller('unsupported')
      class UnsupportedController {
        @Idempotent()
        @Get()
        find(): string {
          return 'x';
        }
      }
      expect((await refusal({ controllers: [UnsupportedController] })).code).toBe(
        'IDEMPOTENCY_HANDLER_UNSUPPORTED',
      );
    });

    it('of providers: GraphQL resolvers, and methods that nobody calls by HTTP', async () => {
      @Injectable()
      class ThingsResolver {
        @Idempotent()
        @metadata('graphql:resolver_type', 'Mutation')
        createThing(): string {
          return 'x';
        }
      }
      @Injectable()
      class ThingsService {
        @Idempotent()
        createThing(): string {
          return 'x';
        }
      }
      const resolver = await refusal({ providers: [ThingsResolver] });
      expect(resolver.message).toMatch(
        /HANDLER_UNSUPPORTED: ThingsResolver\.createThing is a GraphQL resolver.*Put the mutation behind an HTTP endpoint/,
      );
      const service = await refusal({ providers: [ThingsService] });
      expect(service.message).toMatch(
        /HANDLER_UNSUPPORTED: ThingsService\.createThing is not an HTTP handler.*Move the decorator/,
      );
    });

    it('with options that are wrong, naming the handler', async () => {
      @Controller('wrong')
      class WrongController {
        @Post()
        @Idempotent({ ttl: 'soon' })
        create(): string {
          return 'x';
        }
      }
      const error = await refusal({ controllers: [WrongController] });
      expect(error.message).toContain(
        'IDEMPOTENCY_OPTIONS_INVALID: @Idempotent() on WrongController.create: option "ttl"',
      );
    });

    it('whose key could never be accepted, once the options of module and handler are put together', async () => {
      @Controller('long')
      class LongController {
        @Post()
        @Idempotent({ key: { minLength: 257 } })
        create(): string {
          return 'x';
        }
      }
      const error = await refusal({ controllers: [LongController] });
      expect(error.message).toContain(
        'LongController.create: option "key.minLength" must not be greater than "key.maxLength"',
      );
      await start({ controllers: [LongController], idempotency: { key: { maxLength: 300 } } });
    });

    it('but not the GET handlers of a marked controller', async () => {
      @Idempotent()
      @Controller('mixed')
      class MixedController {
        @Get()
        find(): string {
          return 'x';
        }
        @Post()
        create(): string {
          return 'x';
        }
      }
      await start({ controllers: [MixedController] });
    });
  });

  describe('refuses two handlers that would share an endpoint', () => {
    @Controller('labels')
    class ByIdController {
      @Post(':id/print')
      @Idempotent()
      print(): string {
        return 'x';
      }
    }
    @Controller('labels')
    class ByNameController {
      @Post(':name/print')
      @Idempotent()
      print(): string {
        return 'x';
      }
    }
    @Controller({ path: 'hosted', host: 'a.example' })
    class HostedController {
      @Post()
      @Idempotent()
      create(): string {
        return 'x';
      }
    }
    @Controller('named')
    class NamedController {
      @Post('a')
      @Idempotent({ endpoint: 'same' })
      a(): string {
        return 'x';
      }
      @Patch('b')
      @Idempotent({ endpoint: 'same' })
      b(): string {
        return 'x';
      }
    }
    @Idempotent({ endpoint: 'shared' })
    @Controller('inherited')
    class SharedNameController {
      @Post('a')
      a(): string {
        return 'x';
      }
      @Post('b')
      b(): string {
        return 'x';
      }
    }

    it.each<[string, Type[], string, string]>([
      [
        'by one template with other parameters',
        [ByIdController, ByNameController],
        'POST /labels/:/print',
        'ByNameController.print and ByIdController.print',
      ],
      ['by one name', [NamedController], 'same', 'NamedController.b and NamedController.a'],
      [
        'by the name of their controller',
        [SharedNameController],
        'shared',
        'SharedNameController.b and SharedNameController.a',
      ],
    ])('%s', async (_how, controllers, endpoint, who) => {
      const { message } = await refusal({ controllers });
      expect(message).toMatch(/^IDEMPOTENCY_ENDPOINT_AMBIGUOUS: /);
      expect(message).toContain(`${who} would share the endpoint "${endpoint}"`);
      expect(message).toContain("@Idempotent({ endpoint: '…' })");
    });

    it('but not when they have names of their own', async () => {
      @Controller({ path: 'hosted', host: 'a.example' })
      class RenamedController {
        @Post()
        @Idempotent({ endpoint: 'hosted too' })
        create(): string {
          return 'x';
        }
      }
      await start({ controllers: [HostedController, RenamedController] });
    });
  });

  describe('refuses a database', () => {
    it('without the table, and says how to create it', async () => {
      const { url } = await emptyDatabase();
      const { message } = await refusal({ databaseUrl: url });
      expect(message).toMatch(/^IDEMPOTENCY_TABLE_MISSING: there is no table "idempotency_records"\./);
      expect(message).toContain("Add idempotencyMigrations() of 'nestjs-pg-idempotency/migrations'");
      expect(message).toContain('npx nestjs-pg-idempotency ddl');
    });

    it.each([
      ['DROP COLUMN response_headers, DROP COLUMN mode', 'lacks column mode, response_headers'],
      [
        'DROP CONSTRAINT idempotency_records_identity',
        'lacks a unique constraint on (client, endpoint, key)',
      ],
    ])('with an outdated table (%s)', async (change, lack) => {
      const outdated = await createTestDatabase();
      databases.push(outdated);
      await outdated.query(`ALTER TABLE idempotency_records ${change}`);
      const { message } = await refusal({ databaseUrl: outdated.url });
      expect(message).toMatch(/^IDEMPOTENCY_TABLE_OUTDATED: table "idempotency_records" /);
      expect(message).toContain(lack);
      expect(message).toContain("Run the pending migrations of 'nestjs-pg-idempotency/migrations'");
    });

    it.each([
      [
        'inherited from',
        'CREATE TABLE idempotency_records (LIKE former INCLUDING ALL); CREATE TABLE child () INHERITS (idempotency_records)',
      ],
      ['a view', 'CREATE VIEW idempotency_records AS SELECT * FROM former'],
      ['a materialized view', 'CREATE MATERIALIZED VIEW idempotency_records AS SELECT * FROM former'],
      [
        'a foreign table',
        `CREATE FOREIGN DATA WRAPPER elsewhere; CREATE SERVER other FOREIGN DATA WRAPPER elsewhere;
         CREATE FOREIGN TABLE idempotency_records (LIKE former) SERVER other`,
      ],
    ])('with a table that is %s', async (_what, change) => {
      const unsuitable = await createTestDatabase();
      databases.push(unsuitable);
      await unsuitable.query('ALTER TABLE idempotency_records RENAME TO former');
      await unsuitable.query(change);
      const { code, message } = await refusal({ databaseUrl: unsuitable.url });
      expect(code).toBe('IDEMPOTENCY_TABLE_UNSUITABLE');
      expect(message).toContain('Use a plain table, as the migrations make it, or one that is partitioned');
    });

    it('but not with a table that is partitioned', async () => {
      const partitioned = await createTestDatabase();
      databases.push(partitioned);
      await partitioned.query('ALTER TABLE idempotency_records RENAME TO former');
      await partitioned.query(
        'CREATE TABLE idempotency_records (LIKE former INCLUDING ALL) PARTITION BY HASH (client)',
      );
      await partitioned.query(
        'CREATE TABLE part PARTITION OF idempotency_records FOR VALUES WITH (MODULUS 1, REMAINDER 0)',
      );
      await expectRuns(await start({ databaseUrl: partitioned.url }));
    });

    it.each([
      [
        'by time, so that an identity is unique in each partition only',
        `CREATE TABLE idempotency_records (LIKE former INCLUDING ALL EXCLUDING INDEXES,
           PRIMARY KEY (client, endpoint, key, created_at)) PARTITION BY RANGE (created_at);
         CREATE TABLE one PARTITION OF idempotency_records DEFAULT`,
      ],
      [
        'and whose unique index lacks a partition',
        `CREATE TABLE idempotency_records (LIKE former INCLUDING ALL EXCLUDING INDEXES) PARTITION BY HASH (client);
         CREATE TABLE one PARTITION OF idempotency_records FOR VALUES WITH (MODULUS 1, REMAINDER 0);
         CREATE UNIQUE INDEX ON ONLY idempotency_records (client, endpoint, key)`,
      ],
    ])('with a table that is partitioned %s', async (_how, create) => {
      const partitioned = await createTestDatabase();
      databases.push(partitioned);
      await partitioned.query('ALTER TABLE idempotency_records RENAME TO former');
      await partitioned.query(create);
      const { code, message } = await refusal({ databaseUrl: partitioned.url });
      expect(code).toBe('IDEMPOTENCY_TABLE_OUTDATED');
      expect(message).toContain('a unique constraint on (client, endpoint, key)');
    });

    it.each([
      ['CREATE UNIQUE INDEX ON idempotency_records (client, endpoint, key) WHERE mode = $$x$$', 'partial'],
      ['CREATE UNIQUE INDEX ON idempotency_records (client, endpoint, key, mode)', 'of four columns'],
      ['CREATE INDEX ON idempotency_records (client, endpoint, key)', 'not unique'],
      ['CREATE UNIQUE INDEX ON idempotency_records (client, endpoint, lower(key))', 'of an expression'],
      ['ALTER TABLE idempotency_records ADD UNIQUE (client, endpoint, key) DEFERRABLE', 'deferrable'],
    ])('whose only index on the identity is no guarantee (%s)', async (index) => {
      const outdated = await createTestDatabase();
      databases.push(outdated);
      await outdated.query('ALTER TABLE idempotency_records DROP CONSTRAINT idempotency_records_identity');
      await outdated.query(index);
      expect((await refusal({ databaseUrl: outdated.url })).code).toBe('IDEMPOTENCY_TABLE_OUTDATED');
    });

    describe('whose role', () => {
      const ROLE = 'pg_monitor';
      const GRANT = `GRANT ALL ON idempotency_records TO ${ROLE}`;
      let limited: TestDatabase;

      beforeEach(async () => {
        limited = await createTestDatabase();
        databases.push(limited);
      });

      /** As that role. */
      const url = (): string => `${limited.url}?options=${encodeURIComponent(`-c role=${ROLE}`)}`;

      it('may not use the table', async () => {
        await limited.query(`GRANT SELECT, UPDATE ON idempotency_records TO ${ROLE}`);
        const { message } = await refusal({ databaseUrl: url() });
        expect(message).toMatch(
          /^IDEMPOTENCY_TABLE_FORBIDDEN: role "pg_monitor" may not INSERT, DELETE on "idempotency_records"/,
        );
        expect(message).toContain(
          'GRANT SELECT, INSERT, UPDATE, DELETE ON "idempotency_records" TO "pg_monitor"',
        );
      });

      it('may not use its schema', async () => {
        await limited.query('CREATE SCHEMA hidden; ALTER TABLE idempotency_records SET SCHEMA hidden');
        const { code, message } = await refusal({ databaseUrl: url(), idempotency: { schema: 'hidden' } });
        expect(code).toBe('IDEMPOTENCY_TABLE_FORBIDDEN');
        expect(message).toContain('GRANT USAGE ON SCHEMA');
      });

      it('is shown but a part of it', async () => {
        await limited.query(`${GRANT}; ALTER TABLE idempotency_records ENABLE ROW LEVEL SECURITY`);
        const { code, message } = await refusal({ databaseUrl: url() });
        expect(code).toBe('IDEMPOTENCY_TABLE_UNSUITABLE');
        expect(message).toContain('row level security');
      });

      it('but not where it may', async () => {
        await limited.query(GRANT);
        await expectRuns(await start({ databaseUrl: url() }));
      });
    });

    it('with synchronous_commit = off, unless that is accepted', async () => {
      const careless = await createTestDatabase();
      databases.push(careless);
      await careless.query(`ALTER DATABASE "${careless.name}" SET synchronous_commit = off`);
      const { message } = await refusal({ databaseUrl: careless.url });
      expect(message).toMatch(/^IDEMPOTENCY_DATABASE_UNSUITABLE: synchronous_commit is off/);
      expect(message).toContain('Set it to on');
      expect(message).toContain('allowAsynchronousCommit: true');
      await expectRuns(
        await start({ databaseUrl: careless.url, idempotency: { allowAsynchronousCommit: true } }),
      );
    });
  });

  describe('takes a table that is partitioned by hash', () => {
    const ALL = ['client', 'endpoint', 'key'];
    const withKey = async (columns: readonly string[], count: number): Promise<TestDatabase> => {
      const partitioned = await createTestDatabase();
      databases.push(partitioned);
      await partitioned.query('ALTER TABLE idempotency_records RENAME TO former');
      await partitioned.query(
        `CREATE TABLE idempotency_records (LIKE former INCLUDING ALL) PARTITION BY HASH (${columns.join(', ')})`,
      );
      for (let remainder = 0; remainder < count; remainder++) {
        await partitioned.query(
          `CREATE TABLE part_${remainder} PARTITION OF idempotency_records
             FOR VALUES WITH (MODULUS ${count}, REMAINDER ${remainder})`,
        );
      }
      return partitioned;
    };

    it.each([
      ['of the identity', ALL, 4],
      ['of a part of the identity', ['client'], 3],
      ['of the identity, in one partition', ALL, 1],
    ])('%s', async (_what, columns, count) => {
      const partitioned = await withKey(columns, count);
      const app = await start({ databaseUrl: partitioned.url });
      await expectRuns(app);
      const expire = `UPDATE idempotency_records SET expires_at = now() - interval '1 hour'`;
      await partitioned.query(expire);
      const again = await postJson(`${app.url}/things`, {}, { 'Idempotency-Key': 'key' });
      expect(again.headers['idempotency-replayed']).toBeUndefined();
      await partitioned.query(expire);
      expect(await app.app.get(IdempotencyPurgeService).purge()).toBe(1);
      expect(await partitioned.query('SELECT FROM idempotency_records')).toEqual([]);
    });

    it('whose partitions have partitions', async () => {
      const partitioned = await createTestDatabase();
      databases.push(partitioned);
      await partitioned.query(`
        ALTER TABLE idempotency_records RENAME TO former;
        CREATE TABLE idempotency_records (LIKE former INCLUDING ALL) PARTITION BY HASH (client);
        CREATE TABLE part PARTITION OF idempotency_records FOR VALUES WITH (MODULUS 1, REMAINDER 0)
          PARTITION BY HASH (key);
        CREATE TABLE leaf PARTITION OF part FOR VALUES WITH (MODULUS 1, REMAINDER 0)`);
      await expectRuns(await start({ databaseUrl: partitioned.url }));
    });
  });

  it('takes the table that the search_path finds, and from then on that one', async () => {
    const elsewhere = await createTestDatabase();
    databases.push(elsewhere);
    await elsewhere.query(`
      CREATE SCHEMA "My ""Schema""";
      ALTER TABLE idempotency_records SET SCHEMA "My ""Schema""";
      ALTER DATABASE "${elsewhere.name}" SET search_path = public, "My ""Schema"""`);
    const app = await start({ databaseUrl: elsewhere.url });
    await elsewhere.query(idempotencyDdl({ schema: 'public' }).up);
    await expectRuns(app);
    const [row] = await elsewhere.query(
      `SELECT (SELECT count(*)::int FROM "My ""Schema""".idempotency_records) AS "there",
              (SELECT count(*)::int FROM public.idempotency_records) AS "here"`,
    );
    expect(row).toEqual({ there: 1, here: 0 });
  });

  describe('refuses a DataSource', () => {
    const withoutTypeOrm = (options: IdempotencyModuleOptions): Partial<TestAppOptions> => ({
      idempotencyModule: IdempotencyModule.forRoot({ ...OPTIONS, ...options }),
    });

    it('that the application does not have', async () => {
      const module = await Test.createTestingModule({
        imports: [IdempotencyModule.forRoot(OPTIONS)],
      }).compile();
      await expect(module.createNestApplication().init()).rejects.toThrow(
        /DATA_SOURCE_MISSING: the application has no default DataSource\. Import TypeOrmModule\.forRoot/,
      );
    });

    it('that has no such name', async () => {
      const { message } = await refusal(withoutTypeOrm({ ...OPTIONS, dataSource: 'reports' }));
      expect(message).toContain(
        'IDEMPOTENCY_DATA_SOURCE_MISSING: the application has no DataSource named "reports"',
      );
      expect(message).toContain('set the option "dataSource"');
    });

    it('that is not initialised', async () => {
      const dataSource = new DataSource({ type: 'postgres', url: database.url });
      const { message } = await refusal(withoutTypeOrm({ ...OPTIONS, dataSource }));
      expect(message).toContain(
        'IDEMPOTENCY_DATA_SOURCE_UNSUITABLE: the DataSource is not initialised: call its initialize()',
      );
    });

    it('of another database than PostgreSQL', async () => {
      const dataSource = Object.create(DataSource.prototype, {
        options: { value: { type: 'mysql' } },
        isInitialized: { value: true },
      }) as DataSource;
      const { message } = await refusal(withoutTypeOrm({ ...OPTIONS, dataSource }));
      expect(message).toContain(
        'the DataSource is of type "mysql". Records are kept in PostgreSQL: set the option "dataSource"',
      );
    });

    it('of its own that cannot connect, or lacks the table, and leaves no connection open', async () => {
      const empty = await emptyDatabase();
      const own = { type: 'postgres', url: empty.url, applicationName: 'idempotency-test' } as const;
      expect((await refusal(withoutTypeOrm({ ...OPTIONS, dataSource: own }))).code).toBe(
        'IDEMPOTENCY_TABLE_MISSING',
      );
      await eventually(async () => (await connectionsTo(empty.name)) === 0);
      const nowhere = { ...own, url: empty.url.replace(empty.name, 'no_such_database') };
      expect((await refusal(withoutTypeOrm({ ...OPTIONS, dataSource: nowhere }))).message).toContain(
        'no_such_database',
      );
    });
  });

  it('refused leaves no timer', async () => {
    const scheduled = jest.spyOn(globalThis, 'setTimeout');
    const { url } = await emptyDatabase();
    await refusal({ databaseUrl: url, idempotency: { purge: { interval: '10m' } } });
    expect(scheduled.mock.calls.filter(([, delay = 0]) => delay >= 540_000)).toEqual([]);
  });

  it('refuses the module imported twice', async () => {
    const { message } = await refusal({
      imports: [IdempotencyModule.forRoot({ ...OPTIONS, client: sharedClient('others') })],
    });
    expect(message).toMatch(/^IDEMPOTENCY_MODULE_TWICE: .*call forRoot\(\) once, in the root module/);
  });

  it('takes one and the same module imported in two places', async () => {
    const idempotencyModule = IdempotencyModule.forRoot(OPTIONS);
    @Module({ imports: [idempotencyModule] })
    class FeatureModule {}
    await expectRuns(await start({ idempotencyModule, imports: [FeatureModule] }));
    await database.query('TRUNCATE idempotency_records');
  });

  describe('configured asynchronously', () => {
    const TOKEN = 'client-name';

    @Injectable()
    class Factory implements IdempotencyOptionsFactory {
      async createIdempotencyOptions(): Promise<IdempotencyModuleOptions> {
        return OPTIONS;
      }
    }
    @Global()
    @Module({ providers: [{ provide: TOKEN, useValue: 'configured' }, Factory], exports: [TOKEN, Factory] })
    class ConfigModule {}

    afterEach(() => database.query('TRUNCATE idempotency_records'));

    it.each<[string, () => DynamicModule]>([
      [
        'useFactory with inject',
        () =>
          IdempotencyModule.forRootAsync({
            imports: [ConfigModule],
            inject: [TOKEN],
            useFactory: async (name: string) => ({ ...OPTIONS, client: sharedClient(name) }),
          }),
      ],
      ['useClass', () => IdempotencyModule.forRootAsync({ useClass: Factory })],
      [
        'useExisting',
        () => IdempotencyModule.forRootAsync({ imports: [ConfigModule], useExisting: Factory }),
      ],
    ])('works by %s', async (how, module) => {
      await expectRuns(await start({ idempotencyModule: module() }));
      const [record] = await database.query<{ client: string }>('SELECT client FROM idempotency_records');
      expect(record!.client).toBe(how === 'useFactory with inject' ? 'configured' : 'tests');
    });

    it.each([
      ['none', {}],
      ['two', { useClass: Factory, useFactory: () => OPTIONS }],
    ])('refuses %s of the three', (_count, options) => {
      expect(() => IdempotencyModule.forRootAsync(options)).toThrow(
        /OPTIONS_INVALID: .*needs exactly one of useFactory, useClass and useExisting/,
      );
    });

    it('refuses options that are wrong', async () => {
      const useFactory = (): IdempotencyModuleOptions => ({ ...OPTIONS, ttl: 'soon' });
      const { message } = await refusal({
        idempotencyModule: IdempotencyModule.forRootAsync({ useFactory }),
      });
      expect(message).toContain(
        'IDEMPOTENCY_OPTIONS_INVALID: IdempotencyModule.forRootAsync(): option "ttl"',
      );
    });

    it('refuses options without a client', async () => {
      const useFactory = (): IdempotencyModuleOptions => ({}) as IdempotencyModuleOptions;
      const { message } = await refusal({
        idempotencyModule: IdempotencyModule.forRootAsync({ useFactory }),
      });
      expect(message).toContain('option "client" must be set');
    });
  });

  describe('uses what it was told', () => {
    const NAMES = { schema: 'My "Schema"', table: 'Records; of "Requests"' };
    const QUOTED = '"My ""Schema"""."Records; of ""Requests"""';

    const withNames = async (): Promise<TestDatabase> => {
      const named = await emptyDatabase();
      await named.query('CREATE SCHEMA "My ""Schema"""');
      await named.query(idempotencyDdl(NAMES).up);
      return named;
    };
    const records = async (named: TestDatabase): Promise<number> =>
      (await named.query<{ count: number }>(`SELECT count(*)::int AS count FROM ${QUOTED}`))[0]!.count;

    it('as table and schema, for claims, replays, takeovers and the purge', async () => {
      const named = await withNames();
      const app = await start({ databaseUrl: named.url, idempotency: NAMES });
      await expectRuns(app);
      expect(await records(named)).toBe(1);
      const expire = `UPDATE ${QUOTED} SET expires_at = now() - interval '1 hour'`;
      await named.query(expire);
      const again = await postJson(`${app.url}/things`, {}, { 'Idempotency-Key': 'key' });
      expect(again.headers['idempotency-replayed']).toBeUndefined();
      await named.query(expire);
      expect(await app.app.get(IdempotencyPurgeService).purge()).toBe(1);
      expect(await records(named)).toBe(0);
    });

    it('as the schema of the DataSource', async () => {
      const named = await withNames();
      const typeorm = { schema: NAMES.schema };
      await expectRuns(await start({ databaseUrl: named.url, typeorm, idempotency: { table: NAMES.table } }));
      expect(await records(named)).toBe(1);
    });

    it('as a DataSource by its name', async () => {
      const other = await createTestDatabase();
      databases.push(other);
      const app = await start({
        imports: [
          TypeOrmModule.forRoot({ name: 'other', type: 'postgres', url: other.url, retryAttempts: 0 }),
        ],
        idempotency: { dataSource: 'other' },
      });
      await expectRuns(app);
      expect(await other.query('SELECT key FROM idempotency_records')).toEqual([{ key: 'key' }]);
      expect(app.app.get<DataSource>(getDataSourceToken('other')).isInitialized).toBe(true);
    });

    it('as a DataSource that the application made, which stays open', async () => {
      const other = await createTestDatabase();
      databases.push(other);
      const dataSource = await new DataSource({ type: 'postgres', url: other.url }).initialize();
      const app = await start({ idempotency: { dataSource } });
      await expectRuns(app);
      await app.close();
      apps.length = 0;
      expect(await dataSource.query('SELECT key FROM idempotency_records')).toEqual([{ key: 'key' }]);
      await dataSource.destroy();
    });

    it('as options of a DataSource of its own, which it opens and closes', async () => {
      const other = await createTestDatabase();
      databases.push(other);
      const dataSource = { type: 'postgres', url: other.url, applicationName: 'idempotency-test' } as const;
      const app = await start({ idempotency: { dataSource } });
      await expectRuns(app);
      expect(await other.query('SELECT key FROM idempotency_records')).toEqual([{ key: 'key' }]);
      expect(await connectionsTo(other.name)).toBeGreaterThan(0);
      await app.close();
      apps.length = 0;
      await eventually(async () => (await connectionsTo(other.name)) === 0);
    });
  });
});

/** Plants what decorators of packages leave behind that are not installed here. */
function metadata(key: string, value: unknown): MethodDecorator {
  return (_target, _name, descriptor) => {
    Reflect.defineMetadata(key, value, descriptor.value as object);
  };
}
