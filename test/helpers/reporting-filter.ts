import { Catch, type ArgumentsHost, type INestApplication } from '@nestjs/common';
import { BaseExceptionFilter, HttpAdapterHost } from '@nestjs/core';

/** What an application's own filter, or a reporter of errors, gets to see. It answers as Nest does. */
@Catch()
export class ReportingFilter extends BaseExceptionFilter {
  readonly caught: unknown[] = [];

  /** Makes a global one for an application. */
  static in(app: INestApplication): ReportingFilter {
    const filter = new ReportingFilter(app.get(HttpAdapterHost).httpAdapter);
    app.useGlobalFilters(filter);
    return filter;
  }

  override catch(exception: unknown, host: ArgumentsHost): void {
    this.caught.push(exception);
    super.catch(exception, host);
  }
}
