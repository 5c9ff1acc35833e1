import type { ModuleMetadata, Type } from '@nestjs/common';
import type { EntitySchema } from 'typeorm';

/** What an application is told when its process starts. */
export interface AppSettings {
  readonly side: string;
  readonly adapter: 'express' | 'fastify';
  readonly databaseUrl: string;
  readonly redisUrl?: string;
  /** Connections in the pool. */
  readonly pool: number;
  /** Whether the library deletes expired records by itself. Default: true. */
  readonly purgeTimer?: boolean;
  /** Keeps the SQL that was sent, for the parent to ask for. */
  readonly trace?: boolean;
}

/** What a side adds to the application that all of them are. */
export interface SideModule {
  readonly imports?: NonNullable<ModuleMetadata['imports']>;
  readonly controllers: Type[];
  readonly providers?: NonNullable<ModuleMetadata['providers']>;
  readonly entities?: (Type | EntitySchema)[];
}

/** Makes a side's part of the application. */
export type Side = (settings: AppSettings) => SideModule;
