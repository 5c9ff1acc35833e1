import { Injectable, UnauthorizedException, type CanActivate, type ExecutionContext } from '@nestjs/common';
import { ApiClients } from './api-clients.service.js';
import type { AuthenticatedRequest } from './authenticated-request.js';

/** Lets requests pass that bring a known `X-API-Key` with its `X-API-Secret`. */
@Injectable()
export class ApiSecretGuard implements CanActivate {
  constructor(private readonly clients: ApiClients) {}

  async canActivate(context: ExecutionContext): Promise<boolean> {
    const request = context.switchToHttp().getRequest<AuthenticatedRequest>();
    const { 'x-api-key': apiKey, 'x-api-secret': secret } = request.headers;
    const client = await this.clients.byKeyAndSecret(apiKey, secret);
    // One answer for all causes: it does not tell which keys exist.
    if (!client) throw new UnauthorizedException('Send a valid X-API-Key with its X-API-Secret');
    request.user = client;
    return true;
  }
}
