import { Controller, Injectable, type Type } from '@nestjs/common';
import { Crud, Override, ParsedBody, type CrudController, type CrudService } from '@dataui/crud';
import { IsString } from 'class-validator';
import { Idempotent } from 'nestjs-pg-idempotency';
import { Effects, run, type Effect } from './base.js';

class NewEffect {
  @IsString({ always: true })
  name!: string;
}

/** As much of a CRUD service as the tests use. */
@Injectable()
class EffectCrudService {
  constructor(private readonly effects: Effects) {}

  createOne(_request: unknown, { name }: NewEffect): Promise<Effect> {
    return this.effects.write(name);
  }
}

const generate = Crud({ model: { type: NewEffect }, routes: { only: ['createOneBase'] } });

/** One controller for each order of the three decorators, listed from the bottom up, as they are applied. */
const ORDERS = ['ICG', 'IGC', 'CIG', 'CGI', 'GIC', 'GCI'] as const;

const controllers: Type[] = ORDERS.map((order) => {
  class EffectController {
    constructor(readonly service: EffectCrudService) {}
  }
  Reflect.defineMetadata('design:paramtypes', [EffectCrudService], EffectController);
  const decorators: Record<string, ClassDecorator> = {
    I: Idempotent() as ClassDecorator,
    C: Controller(order),
    G: generate as ClassDecorator,
  };
  for (const letter of order) decorators[letter]?.(EffectController);
  return EffectController;
});

/** As it is written by hand, with handlers that take the place of generated ones. */
@Crud({ model: { type: NewEffect }, routes: { only: ['createOneBase', 'createManyBase'] } })
@Controller('overridden')
class OverriddenController implements CrudController<Effect> {
  constructor(
    readonly service: EffectCrudService & CrudService<Effect>,
    private readonly effects: Effects,
  ) {}

  @Override('createOneBase')
  @Idempotent()
  createOne(@ParsedBody() { name }: NewEffect): Promise<Effect> {
    return this.effects.write(name);
  }

  @Idempotent()
  @Override('createManyBase')
  createMany(@ParsedBody() { name }: NewEffect): Promise<Effect> {
    return this.effects.write(name);
  }
}
Reflect.defineMetadata('design:paramtypes', [EffectCrudService, Effects], OverriddenController);

run({
  controllers: process.env['CASE'] === 'overridden' ? [OverriddenController] : controllers,
  providers: [EffectCrudService],
});
