import {
  Body,
  Controller,
  HostParam,
  Post,
  Version,
  VERSION_NEUTRAL,
  VersioningType,
  type Type,
} from '@nestjs/common';
import { Idempotent } from 'nestjs-pg-idempotency';
import { Effects, run, type Effect, type NamedBody } from './base.js';

@Controller({ host: ':tenant.example.com', path: 'tenants', version: VERSION_NEUTRAL })
class TenantController {
  constructor(private readonly effects: Effects) {}

  @Post()
  @Idempotent()
  create(@HostParam('tenant') tenant: string, @Body() { name }: NamedBody): Promise<Effect> {
    return this.effects.write(`${name} of ${tenant}`);
  }
}

/** The same path on two hosts, by two controllers. */
@Controller({ host: 'one.example.org', path: 'shared', version: VERSION_NEUTRAL })
class FirstHostController {
  constructor(private readonly effects: Effects) {}

  @Post()
  @Idempotent()
  create(@Body() { name }: NamedBody): Promise<Effect> {
    return this.effects.write(name);
  }
}

@Controller({ host: 'two.example.org', path: 'shared', version: VERSION_NEUTRAL })
class SecondHostController {
  constructor(private readonly effects: Effects) {}

  @Post()
  @Idempotent()
  create(@Body() { name }: NamedBody): Promise<Effect> {
    return this.effects.write(name);
  }
}

@Controller('versions')
class VersionsController {
  constructor(private readonly effects: Effects) {}

  @Post()
  @Version(['1', '2'])
  @Idempotent({ endpoint: 'create-effect' })
  create(@Body() { name }: NamedBody): Promise<Effect> {
    return this.effects.write(name);
  }
}

// Fastify refuses two controllers of one path, whatever their hosts are.
const onHosts =
  process.env['ADAPTER'] === 'express' ? [TenantController, FirstHostController, SecondHostController] : [];

run({
  controllers: [...onHosts, VersionsController],
  configure: (app) => {
    app.enableVersioning({ type: VersioningType.HEADER, header: 'X-Version' });
  },
});
