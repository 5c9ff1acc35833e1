import type { IncomingMessage, ServerResponse } from 'node:http';

/**
 * Middleware that loses the answer to a request which asks for that with `X-Lose-Response`: in place of the first byte of
 * the answer, when all that the request did is committed, the connection breaks.
 */
export function loseResponse(request: IncomingMessage, response: ServerResponse, next: () => void): void {
  if (request.headers['x-lose-response'] !== undefined) {
    const lose = (): ServerResponse => response.destroy();
    response.writeHead = lose;
    response.end = lose;
  }
  next();
}
