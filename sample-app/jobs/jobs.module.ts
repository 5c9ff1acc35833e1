import { Module } from '@nestjs/common';
import { AuthModule } from '../auth/auth.module.js';
import { ChargesModule } from '../charges/charges.module.js';
import { ChargeQueue } from './charge-queue.js';
import { JobsController } from './jobs.controller.js';

/** A queue and its worker, on the same database. */
@Module({ imports: [AuthModule, ChargesModule], controllers: [JobsController], providers: [ChargeQueue] })
export class JobsModule {}
