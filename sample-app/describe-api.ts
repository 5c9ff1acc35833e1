import type { INestApplication } from '@nestjs/common';
import { DocumentBuilder, SwaggerModule } from '@nestjs/swagger';

const DESCRIPTION = `Keys, errors and headers of protected operations are described by the library itself.
Authorize with a client that the start of the application prints.`;

/** Serves Swagger UI at `/docs`, and the document at `/docs-json`. */
export function describeApi(app: INestApplication): void {
  const about = new DocumentBuilder()
    .setTitle('nestjs-pg-idempotency: sample application')
    .setDescription(DESCRIPTION)
    .setVersion('1')
    .addApiKey({ type: 'apiKey', in: 'header', name: 'X-API-Key' }, 'key')
    .addApiKey({ type: 'apiKey', in: 'header', name: 'X-API-Secret' }, 'secret')
    .addSecurityRequirements({ key: [], secret: [] })
    .build();
  SwaggerModule.setup('docs', app, () => SwaggerModule.createDocument(app, about));
}
