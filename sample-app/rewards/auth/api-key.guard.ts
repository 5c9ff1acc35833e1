import { timingSafeEqual } from 'node:crypto';
import { Injectable, UnauthorizedException, type CanActivate, type ExecutionContext } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import { Repository } from 'typeorm';
import { ApiClient } from './api-client.entity.js';
import type { AuthenticatedRequest } from './authenticated-request.js';
import { sha256 } from './sha256.js';

/** Stands in for the digest of an unknown key's secret: no secret has it. */
const NO_DIGEST = Buffer.alloc(32);

/** Lets requests pass that bring a known `X-API-Key` with its `X-API-Secret`. */
@Injectable()
export class ApiKeyGuard implements CanActivate {
  constructor(@InjectRepository(ApiClient) private readonly clients: Repository<ApiClient>) {}

  async canActivate(context: ExecutionContext): Promise<boolean> {
    const request = context.switchToHttp().getRequest<AuthenticatedRequest>();
    const { 'x-api-key': apiKey, 'x-api-secret': secret } = request.headers;
    if (typeof apiKey !== 'string' || typeof secret !== 'string') throw unauthorized();
    const client = await this.clients.findOneBy({ apiKey });
    const matches = timingSafeEqual(sha256(secret), client?.secretSha256 ?? NO_DIGEST);
    if (client === null || !matches) throw unauthorized();
    request.user = client;
    return true;
  }
}

/** One answer for all causes: it does not tell which keys exist. */
function unauthorized(): UnauthorizedException {
  return new UnauthorizedException('Send a valid X-API-Key with its X-API-Secret');
}
