import { Body, Controller, HttpException, Injectable, Post } from '@nestjs/common';
import { afterCommit, Idempotent, outside } from 'nestjs-pg-idempotency';
import { DataSource } from 'typeorm';
import {
  addTransactionalDataSource,
  initializeTransactionalContext,
  Propagation,
  runOnTransactionCommit,
  StorageDriver,
  Transactional,
} from 'typeorm-transactional';
import { Effects, run, type Effect, type NamedBody } from './base.js';

initializeTransactionalContext({
  storageDriver: StorageDriver[(process.env['STORAGE'] ?? 'AUTO') as keyof typeof StorageDriver],
});

@Injectable()
class Ledger {
  constructor(private readonly effects: Effects) {}

  @Transactional()
  write(name: string): Promise<Effect> {
    return this.effects.write(name);
  }

  @Transactional({ propagation: Propagation.REQUIRES_NEW })
  writeAnew(name: string): Promise<Effect> {
    return this.effects.write(name);
  }

  @Transactional()
  async writeWithHooks(name: string): Promise<Effect> {
    runOnTransactionCommit(() => console.log(`runOnTransactionCommit ${name}`));
    afterCommit(() => console.log(`afterCommit ${name}`));
    return this.effects.write(name);
  }

  @Transactional()
  async fail(name: string): Promise<void> {
    await this.effects.write(name);
    throw new Error('as it happens');
  }
}

@Controller()
class TransactionalController {
  constructor(
    private readonly ledger: Ledger,
    private readonly effects: Effects,
  ) {}

  @Post('effects')
  @Idempotent()
  create(@Body() { name }: NamedBody): Promise<Effect> {
    return this.ledger.write(name);
  }

  @Post('transactional')
  @Idempotent()
  @Transactional()
  async transactional(@Body() { name }: NamedBody): Promise<Effect> {
    return this.effects.write(name);
  }

  @Post('nested')
  @Idempotent()
  async nested(@Body() { name }: NamedBody): Promise<Effect> {
    const effect = await this.effects.write(name);
    await this.ledger.fail(`${name} undone`).catch(() => undefined);
    return effect;
  }

  @Post('hooks')
  @Idempotent()
  hooks(@Body() { name }: NamedBody): Promise<Effect> {
    return this.ledger.writeWithHooks(name);
  }

  @Post('refused')
  @Idempotent()
  async refused(@Body() { name }: NamedBody): Promise<never> {
    await this.ledger.writeWithHooks(name);
    await this.ledger.writeAnew(`${name} by REQUIRES_NEW`);
    await outside(() => this.ledger.writeAnew(`${name} outside`));
    throw new HttpException('Payment required', 402);
  }
}

run({
  typeorm: {
    dataSourceFactory: (options) => Promise.resolve(addTransactionalDataSource(new DataSource(options))),
  },
  controllers: [TransactionalController],
  providers: [Ledger],
});
