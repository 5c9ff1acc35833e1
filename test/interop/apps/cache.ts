import { Body, Controller, Get, Post, UseInterceptors } from '@nestjs/common';
import { CacheInterceptor, CacheKey, CacheModule } from '@nestjs/cache-manager';
import { Idempotent } from 'nestjs-pg-idempotency';
import { Effects, run, type Effect, type NamedBody } from './base.js';

/** The interceptor caches GET alone by default: the protected handler beside it is none of its business. */
@Controller('effects')
@UseInterceptors(CacheInterceptor)
class CachedController {
  constructor(private readonly effects: Effects) {}

  @Get()
  count(): Promise<number> {
    return this.effects.repository.count();
  }

  @Post()
  @Idempotent()
  create(@Body() { name }: NamedBody): Promise<Effect> {
    return this.effects.write(name);
  }
}

/** The hazard: a key of the cache on the protected handler has the interceptor answer for it. */
@Controller('cached')
@UseInterceptors(CacheInterceptor)
class CachedMutationController {
  constructor(private readonly effects: Effects) {}

  @Post()
  @CacheKey('mutation')
  @Idempotent()
  create(@Body() { name }: NamedBody): Promise<Effect> {
    return this.effects.write(name);
  }
}

run({
  imports: [CacheModule.register({ ttl: 600_000 })],
  controllers: [CachedController, CachedMutationController],
});
