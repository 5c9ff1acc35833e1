import { Module } from '@nestjs/common';
import { SeederService } from './seeder.service.js';

/** Fills the database at the first start. */
@Module({ providers: [SeederService] })
export class SeedModule {}
