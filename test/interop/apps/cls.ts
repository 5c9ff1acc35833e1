import { Body, Controller, HttpException, Injectable, Post } from '@nestjs/common';
import {
  ClsPluginTransactional,
  Propagation,
  Transactional,
  TransactionHost,
} from '@nestjs-cls/transactional';
import { TransactionalAdapterTypeOrm } from '@nestjs-cls/transactional-adapter-typeorm';
import { getDataSourceToken, TypeOrmModule } from '@nestjs/typeorm';
import { ClsModule, ClsService } from 'nestjs-cls';
import { Idempotent, outside } from 'nestjs-pg-idempotency';
import { Effect, Effects, run, type NamedBody } from './base.js';

@Injectable()
class Ledger {
  constructor(
    private readonly host: TransactionHost<TransactionalAdapterTypeOrm>,
    private readonly effects: Effects,
  ) {}

  @Transactional()
  write(name: string, nonce: string): Promise<Effect> {
    return this.host.tx.getRepository(Effect).save({ name, nonce });
  }

  @Transactional(Propagation.RequiresNew)
  writeAnew(name: string): Promise<Effect> {
    return this.host.tx.getRepository(Effect).save({ name, nonce: 'new' });
  }

  @Transactional()
  async fail(name: string): Promise<void> {
    await this.write(name, 'undone');
    throw new Error('as it happens');
  }

  plain(name: string): Promise<Effect> {
    return this.effects.write(name);
  }
}

@Controller()
class ClsController {
  constructor(
    private readonly ledger: Ledger,
    private readonly cls: ClsService,
  ) {}

  @Post('effects')
  @Idempotent()
  create(@Body() { name }: NamedBody): Promise<Effect> {
    return this.ledger.write(name, this.cls.getId());
  }

  /** The whole method is a transaction of the plug-in. */
  @Post('transactional')
  @Idempotent()
  @Transactional()
  async transactional(@Body() { name }: NamedBody): Promise<Effect> {
    return this.ledger.write(name, this.cls.getId());
  }

  /** What fails inside is undone, what was written before stays. */
  @Post('nested')
  @Idempotent()
  async nested(@Body() { name }: NamedBody): Promise<Effect> {
    const effect = await this.ledger.plain(name);
    await this.ledger.fail(`${name} undone`).catch(() => undefined);
    return effect;
  }

  /** A new transaction inside the handler's is a savepoint, undone with it; outside it stays. */
  @Post('refused')
  @Idempotent()
  async refused(@Body() { name }: NamedBody): Promise<never> {
    await this.ledger.writeAnew(`${name} by RequiresNew`);
    await outside(() => this.ledger.writeAnew(`${name} outside`));
    throw new HttpException('Payment required', 402);
  }
}

run({
  imports: [
    ClsModule.forRoot({
      global: true,
      middleware: { mount: true, generateId: true },
      plugins: [
        new ClsPluginTransactional({
          imports: [TypeOrmModule],
          adapter: new TransactionalAdapterTypeOrm({ dataSourceToken: getDataSourceToken() }),
        }),
      ],
    }),
  ],
  controllers: [ClsController],
  providers: [Ledger],
});
