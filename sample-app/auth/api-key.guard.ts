import { Injectable, UnauthorizedException, type CanActivate, type ExecutionContext } from '@nestjs/common';
import { ApiClients } from './api-clients.service.js';
import type { AuthenticatedRequest } from './authenticated-request.js';

/** Lets requests pass that bring a known `X-API-Key`. */
@Injectable()
export class ApiKeyGuard implements CanActivate {
  constructor(private readonly clients: ApiClients) {}

  async canActivate(context: ExecutionContext): Promise<boolean> {
    const request = context.switchToHttp().getRequest<AuthenticatedRequest>();
    const client = await this.clients.byKey(request.headers['x-api-key']);
    if (!client) throw new UnauthorizedException('Send a valid X-API-Key');
    request.user = client;
    return true;
  }
}
