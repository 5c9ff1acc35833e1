import { Module, type MiddlewareConsumer, type NestModule } from '@nestjs/common';
import { loseResponse } from './lose-response.js';
import { StartPageController } from './start-page.controller.js';

/** The page at `/`, and the fault that it needs. */
@Module({ controllers: [StartPageController] })
export class StartPageModule implements NestModule {
  configure(consumer: MiddlewareConsumer): void {
    consumer.apply(loseResponse).forRoutes('*path');
  }
}
