import { Injectable, UnauthorizedException, type CanActivate, type ExecutionContext } from '@nestjs/common';
import { ApiClients } from '../auth/api-clients.service.js';
import type { AuthenticatedRequest } from '../auth/authenticated-request.js';

/** Stands for everybody who sends no credentials. */
const ANYBODY = 'anybody';

/**
 * Recognises a client by `X-API-Key`, or by its API key as a bearer token. Without either the request passes too: this
 * API is there to try a client on.
 */
@Injectable()
export class ChargesGuard implements CanActivate {
  constructor(private readonly clients: ApiClients) {}

  async canActivate(context: ExecutionContext): Promise<boolean> {
    const request = context.switchToHttp().getRequest<AuthenticatedRequest>();
    const { 'x-api-key': apiKey, authorization } = request.headers;
    const credential = apiKey ?? authorization?.replace(/^Bearer /i, '');
    if (credential === undefined) return true;
    request.user = await this.clients.byKey(credential);
    if (!request.user) throw new UnauthorizedException('Send a valid API key, or none');
    return true;
  }
}

/** Whose charges a request is about, and whose idempotency key it carries. */
export function ownerOf(request: AuthenticatedRequest): string {
  return request.user?.id ?? ANYBODY;
}
