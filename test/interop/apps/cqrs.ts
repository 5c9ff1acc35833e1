import { Body, Controller, HttpException, Post } from '@nestjs/common';
import {
  CommandBus,
  CommandHandler,
  CqrsModule,
  EventBus,
  EventsHandler,
  type ICommandHandler,
  type IEventHandler,
} from '@nestjs/cqrs';
import { afterCommit, Idempotent } from 'nestjs-pg-idempotency';
import { Effects, run, type Effect, type NamedBody } from './base.js';

class CreateEffect {
  constructor(readonly name: string) {}
}

class EffectCreated {
  constructor(
    readonly name: string,
    /** What the event's handler waits for before it writes. */
    readonly gate: Promise<unknown> = Promise.resolve(),
  ) {}
}

@CommandHandler(CreateEffect)
class CreateEffectHandler implements ICommandHandler<CreateEffect, Effect> {
  constructor(private readonly effects: Effects) {}

  execute({ name }: CreateEffect): Promise<Effect> {
    return this.effects.write(name);
  }
}

@EventsHandler(EffectCreated)
class EffectCreatedHandler implements IEventHandler<EffectCreated> {
  constructor(private readonly effects: Effects) {}

  async handle({ name, gate }: EffectCreated): Promise<void> {
    await gate;
    await this.effects.write(`${name} heard`);
  }
}

@Controller()
class CqrsController {
  constructor(
    private readonly commands: CommandBus,
    private readonly events: EventBus,
    private readonly effects: Effects,
  ) {}

  @Post('effects')
  @Idempotent()
  async create(@Body() { name }: NamedBody): Promise<Effect> {
    const effect = await this.commands.execute<CreateEffect, Effect>(new CreateEffect(name));
    afterCommit(() => this.events.publish(new EffectCreated(name)));
    return effect;
  }

  @Post('refused')
  @Idempotent()
  async refused(@Body() { name }: NamedBody): Promise<never> {
    await this.commands.execute(new CreateEffect(name));
    afterCommit(() => this.events.publish(new EffectCreated(name)));
    throw new HttpException('Payment required', 402);
  }

  /** The limit: a process that is killed between COMMIT and publish. What is in the outbox stays. */
  @Post('killed')
  @Idempotent()
  async killed(@Body() { name }: NamedBody): Promise<Effect> {
    const effect = await this.effects.write(name);
    await this.effects.write(`${name} in the outbox`);
    afterCommit(() => process.kill(process.pid, 'SIGKILL'));
    afterCommit(() => this.events.publish(new EffectCreated(name)));
    return effect;
  }

  /** The hazard: nobody awaits what the event's handlers do, and the handler ends before them. */
  @Post('directly')
  @Idempotent()
  async directly(@Body() { name }: NamedBody): Promise<Effect> {
    const { promise, release } = gate();
    const effect = await this.effects.write(name);
    this.events.publish(new EffectCreated(name, promise));
    afterCommit(release);
    return effect;
  }
}

function gate(): { promise: Promise<void>; release: () => void } {
  let release!: () => void;
  const promise = new Promise<void>((resolve) => (release = resolve));
  return { promise, release };
}

run({
  imports: [CqrsModule.forRoot()],
  controllers: [CqrsController],
  providers: [CreateEffectHandler, EffectCreatedHandler],
});
