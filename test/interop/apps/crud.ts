import { Controller, Injectable, type Type } from '@nestjs/common';
import { Crud, Override, type CrudController, type CrudService } from '@dataui/crud';
import { IsString } from 'class-validator';
import { Idempotent } from 'nestjs-pg-idempotency';
import { Effects, run, type Effect } from './base.js';

class NewEffect {
  @IsString()
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

/** As it is written by hand, with a handler that takes the place of a generated one. */
@Crud({ model: { type: NewEffect }, routes: { only: ['createOneBase'] } })
@Controller('overridden')
class OverriddenController implements CrudController<Effect> {
  readonly service: CrudService<Effect>;

  constructor(service: EffectCrudService) {
    this.service = service as unknown as CrudService<Effect>;
  }

  @Override('createOneBase')
  @Idempotent()
  createOne(...args: unknown[]): Promise<Effect> {
    const body = args.find((value) => typeof (value as NewEffect | undefined)?.name === 'string');
    return (this.service as unknown as EffectCrudService).createOne(undefined, body as NewEffect);
  }
}

run({ controllers: [...controllers, OverriddenController], providers: [EffectCrudService] });
