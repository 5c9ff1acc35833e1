import type { IncomingHttpHeaders } from 'node:http';
import type { ApiClient } from './api-client.entity.js';

/** The part of a request, Express' or Fastify's, that authentication reads and writes. */
export interface AuthenticatedRequest {
  readonly headers: IncomingHttpHeaders;
  /** Set once the guard has let the request pass. */
  user?: ApiClient;
}
