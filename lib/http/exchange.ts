import type { ExecutionContext } from '@nestjs/common';
import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http';

/** The part of Express' request that is used. */
interface ExpressRequest extends IncomingMessage {
  readonly originalUrl: string;
  readonly hostname?: string;
  readonly body?: unknown;
  readonly rawBody?: Buffer;
  readonly route?: { readonly path?: unknown };
}

/** The part of Fastify's request that is used. */
interface FastifyRequest {
  readonly raw: IncomingMessage;
  readonly originalUrl: string;
  readonly hostname?: string;
  readonly body?: unknown;
  readonly rawBody?: Buffer;
  readonly routeOptions?: { readonly url?: string };
}

interface FastifyReply {
  readonly raw: ServerResponse;
  getHeaders(): OutgoingHttpHeaders;
  send(payload?: unknown): unknown;
}

/** One request and its response, the same on both adapters. */
export interface Exchange {
  /** The adapter's own request, for resolvers and functions of the application. */
  readonly request: unknown;
  readonly rawRequest: IncomingMessage;
  readonly rawResponse: ServerResponse;
  /** Path and query as they were sent. */
  readonly url: string;
  /** The host that it was sent to, as the adapter reads it: behind a proxy that is trusted, what that says. */
  readonly hostname: string;
  /** The route as it was registered, such as `/orders/:id`. */
  readonly template: string;
  readonly body: unknown;
  readonly rawBody: Buffer | undefined;
  /** The headers that are set so far: a copy. */
  headers(): OutgoingHttpHeaders;
  /** Answers with nothing, through the adapter's hooks; for a held response, whose content is replaced anyway. */
  writePlaceholder(): void;
}

/** Tells the adapters apart by what they hand out, so that neither has to be installed. */
export function exchangeOf(context: ExecutionContext): Exchange {
  const http = context.switchToHttp();
  const request = http.getRequest<ExpressRequest | FastifyRequest>();
  const response = http.getResponse<ServerResponse | FastifyReply>();
  return 'raw' in response && 'raw' in request
    ? fastifyExchange(request, response)
    : expressExchange(request as ExpressRequest, response as ServerResponse);
}

function expressExchange(request: ExpressRequest, response: ServerResponse): Exchange {
  return {
    request,
    rawRequest: request,
    rawResponse: response,
    url: request.originalUrl,
    hostname: request.hostname ?? '',
    template: typeof request.route?.path === 'string' ? request.route.path : '',
    body: request.body,
    rawBody: request.rawBody,
    headers: () => copied(response.getHeaders()),
    writePlaceholder: () => void response.end(),
  };
}

function fastifyExchange(request: FastifyRequest, reply: FastifyReply): Exchange {
  return {
    request,
    rawRequest: request.raw,
    rawResponse: reply.raw,
    url: request.originalUrl,
    hostname: request.hostname ?? '',
    template: request.routeOptions?.url ?? '',
    body: request.body,
    rawBody: request.rawBody,
    headers: () => copied(reply.getHeaders()),
    writePlaceholder: () => void reply.send(),
  };
}

/** Lists as well: what is appended to a header is pushed to the list it has. */
function copied(headers: OutgoingHttpHeaders): OutgoingHttpHeaders {
  for (const name in headers) {
    const value = headers[name];
    if (Array.isArray(value)) headers[name] = [...value];
  }
  return headers;
}
