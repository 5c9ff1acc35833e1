import type { TypeOrmModuleOptions } from '@nestjs/typeorm';
import { idempotencyMigrations } from 'nestjs-pg-idempotency/migrations';
import { MIGRATIONS } from './migrations/index.js';

/** How the application connects, and what its schema is made of. The entities come with their modules. */
export function dataSourceOptions(url: string): TypeOrmModuleOptions {
  return {
    type: 'postgres',
    url,
    autoLoadEntities: true,
    migrations: [...idempotencyMigrations(), ...MIGRATIONS],
    migrationsRun: true,
    // gen_random_uuid() is part of PostgreSQL: no extension is needed for it, nor the right to create one.
    uuidExtension: 'pgcrypto',
    installExtensions: false,
    // A wrong DATABASE_URL is reported at once.
    toRetry: () => false,
  };
}
