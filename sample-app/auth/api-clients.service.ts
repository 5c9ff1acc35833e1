import { timingSafeEqual } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import { Repository } from 'typeorm';
import { ApiClient } from './api-client.entity.js';
import { sha256 } from './sha256.js';

/** Stands in for the digest of an unknown key's secret: no secret has it. */
const NO_DIGEST = Buffer.alloc(32);

/** Recognises clients. */
@Injectable()
export class ApiClients {
  constructor(@InjectRepository(ApiClient) private readonly clients: Repository<ApiClient>) {}

  /** Who has this API key. */
  async byKey(apiKey: unknown): Promise<ApiClient | undefined> {
    if (typeof apiKey !== 'string') return undefined;
    return (await this.clients.findOneBy({ apiKey })) ?? undefined;
  }

  /** Who has this API key with this secret. An unknown key takes as long as a wrong secret. */
  async byKeyAndSecret(apiKey: unknown, secret: unknown): Promise<ApiClient | undefined> {
    if (typeof secret !== 'string') return undefined;
    const client = await this.byKey(apiKey);
    const matches = timingSafeEqual(sha256(secret), client?.secretSha256 ?? NO_DIGEST);
    return matches ? client : undefined;
  }
}
