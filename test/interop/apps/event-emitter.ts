import { Body, Controller, HttpException, Injectable, Post } from '@nestjs/common';
import { EventEmitter2, EventEmitterModule, OnEvent } from '@nestjs/event-emitter';
import { afterCommit, Idempotent } from 'nestjs-pg-idempotency';
import { Effects, run, type Effect, type NamedBody } from './base.js';

interface Created {
  readonly name: string;
  /** What the listener waits for before it writes. */
  readonly gate?: Promise<unknown>;
}

@Injectable()
class Listener {
  constructor(private readonly effects: Effects) {}

  @OnEvent('effect.created')
  async onCreated({ name, gate }: Created): Promise<void> {
    await gate;
    await this.effects.write(`${name} heard`);
  }
}

@Controller()
class EmitterController {
  constructor(
    private readonly emitter: EventEmitter2,
    private readonly effects: Effects,
  ) {}

  @Post('effects')
  @Idempotent()
  async create(@Body() { name }: NamedBody): Promise<Effect> {
    const effect = await this.effects.write(name);
    afterCommit(() => this.emitter.emitAsync('effect.created', { name }));
    return effect;
  }

  @Post('refused')
  @Idempotent()
  async refused(@Body() { name }: NamedBody): Promise<never> {
    await this.effects.write(name);
    afterCommit(() => this.emitter.emitAsync('effect.created', { name }));
    throw new HttpException('Payment required', 402);
  }

  /** What listeners do is awaited, and so part of the transaction. */
  @Post('awaited')
  @Idempotent()
  async awaited(@Body() { name }: NamedBody): Promise<Effect> {
    const effect = await this.effects.write(name);
    await this.emitter.emitAsync('effect.created', { name });
    return effect;
  }

  /** The hazard: nobody awaits the listeners, and the handler ends before them. */
  @Post('directly')
  @Idempotent()
  async directly(@Body() { name }: NamedBody): Promise<Effect> {
    let release!: () => void;
    const gate = new Promise<void>((resolve) => (release = resolve));
    const effect = await this.effects.write(name);
    this.emitter.emit('effect.created', { name, gate });
    afterCommit(release);
    return effect;
  }
}

run({ imports: [EventEmitterModule.forRoot()], controllers: [EmitterController], providers: [Listener] });
