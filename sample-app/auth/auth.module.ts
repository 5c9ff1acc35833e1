import { Module } from '@nestjs/common';
import { TypeOrmModule } from '@nestjs/typeorm';
import { ApiClient } from './api-client.entity.js';
import { ApiClients } from './api-clients.service.js';

/** Who calls: what the guards of all APIs ask. */
@Module({
  imports: [TypeOrmModule.forFeature([ApiClient])],
  providers: [ApiClients],
  exports: [ApiClients],
})
export class AuthModule {}
