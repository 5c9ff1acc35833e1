import { Module, type DynamicModule } from '@nestjs/common';
import { TypeOrmModule } from '@nestjs/typeorm';
import { clientFromUser, IdempotencyModule } from 'nestjs-pg-idempotency';
import { dataSourceOptions } from './database/data-source-options.js';
import { SeedModule } from './database/seed.module.js';
import { ChargesModule } from './charges/charges.module.js';
import { JobsModule } from './jobs/jobs.module.js';
import { RewardsModule } from './rewards/rewards.module.js';
import { ShippingModule } from './shipping/shipping.module.js';
import { StartPageModule } from './start-page/start-page.module.js';
import { SupportModule } from './support/support.module.js';
import { WebhooksModule } from './webhooks/webhooks.module.js';

/** The whole sample application. Each API is a module of its own, with its own rules for idempotency keys. */
@Module({})
export class SampleModule {
  /** @param databaseUrl - Connection string of the one database that everything is in. */
  static forRoot(databaseUrl: string): DynamicModule {
    return {
      module: SampleModule,
      imports: [
        TypeOrmModule.forRoot(dataSourceOptions(databaseUrl)),
        // Guards put whoever they recognised on `request.user`, and the keys are theirs.
        IdempotencyModule.forRoot({ client: clientFromUser((user: { id: string }) => user.id) }),
        SeedModule,
        ChargesModule,
        JobsModule,
        RewardsModule,
        ShippingModule,
        StartPageModule,
        SupportModule,
        WebhooksModule,
      ],
    };
  }
}
