import { arch, cpus, platform, release, totalmem } from 'node:os';
import type { Postgres } from './postgres.js';
import type { Redis } from './redis.js';

/** What the figures were measured on. */
export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly memory_gb: number;
  readonly kernel: string;
  readonly load_node: string;
  readonly postgres: Readonly<Record<string, string>>;
  readonly redis: string | null;
}

/** Describes this machine. */
export function describeMachine(postgres: Postgres, redis: Redis | undefined): Machine {
  return {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: cpus().length,
    memory_gb: Math.round(totalmem() / 2 ** 30),
    kernel: `${platform()} ${release()} ${arch()}`,
    load_node: process.versions.node,
    postgres: postgres.settings,
    redis: redis === undefined ? null : `${redis.version}, in memory alone`,
  };
}
