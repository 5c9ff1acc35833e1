import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Body, Controller, Post } from '@nestjs/common';
import { configure } from '@codegenie/serverless-express';
import { Idempotent } from 'nestjs-pg-idempotency';
import serverless from 'serverless-http';
import { createApp, Effects, fail, type Effect, type NamedBody } from './base.js';

@Controller()
class ServerlessController {
  constructor(private readonly effects: Effects) {}

  @Post('effects')
  @Idempotent()
  create(@Body() { name }: NamedBody): Promise<Effect> {
    return this.effects.write(name);
  }

  @Post('optional')
  @Idempotent({ key: { required: false } })
  optional(@Body() { name }: NamedBody): Promise<Effect> {
    return this.effects.write(name);
  }
}

interface LambdaResponse {
  readonly statusCode: number;
  readonly headers?: Record<string, string>;
  readonly multiValueHeaders?: Record<string, string[]>;
  readonly body?: string;
  readonly isBase64Encoded?: boolean;
}

type Handler = (event: object, context: object) => Promise<LambdaResponse>;

/** An event as API Gateway makes it of a request, in the format that the test asks for. */
function eventOf(request: IncomingMessage, body: string): object {
  const headers = request.headers as Record<string, string>;
  const method = request.method ?? 'GET';
  const path = request.url ?? '/';
  if (request.headers['x-event'] === '2.0')
    return {
      version: '2.0',
      routeKey: '$default',
      rawPath: path,
      rawQueryString: '',
      headers,
      requestContext: {
        http: { method, path, protocol: 'HTTP/1.1', sourceIp: '127.0.0.1' },
        stage: '$default',
      },
      body,
      isBase64Encoded: false,
    };
  return {
    resource: '/{proxy+}',
    path,
    httpMethod: method,
    headers,
    multiValueHeaders: Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, [value]])),
    queryStringParameters: null,
    requestContext: { httpMethod: method, path, stage: 'test', identity: { sourceIp: '127.0.0.1' } },
    body,
    isBase64Encoded: false,
  };
}

async function start(): Promise<void> {
  const app = await createApp({ controllers: [ServerlessController] });
  await app.init();
  const express = app.getHttpAdapter().getInstance() as never;
  const handlers: Record<string, Handler> = {
    'serverless-http': serverless(express) as Handler,
    '@codegenie/serverless-express': configure({ app: express }) as unknown as Handler,
  };
  // Stands for API Gateway: a request becomes an event, and what the handler answers becomes the response.
  const gateway = createServer((request, response) => {
    void (async () => {
      let body = '';
      for await (const chunk of request) body += String(chunk);
      const handler = handlers[String(request.headers['x-package'])]!;
      const answer = await handler(eventOf(request, body), {});
      for (const [name, values] of Object.entries(answer.multiValueHeaders ?? {}))
        response.setHeader(name, values);
      for (const [name, value] of Object.entries(answer.headers ?? {})) response.setHeader(name, value);
      response.statusCode = answer.statusCode;
      response.end(Buffer.from(answer.body ?? '', answer.isBase64Encoded ? 'base64' : 'utf8'));
    })();
  });
  gateway.listen(0, '127.0.0.1', () => {
    console.log(`listening http://127.0.0.1:${(gateway.address() as AddressInfo).port}`);
  });
}

start().catch(fail);
