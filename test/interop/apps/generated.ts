import { Body, Controller, Injectable, Post, type Type } from '@nestjs/common';
import { Idempotent } from 'nestjs-pg-idempotency';
import { Effects, run, type Effect, type NamedBody } from './base.js';

/** A class decorator that adds a handler, as CRUD generators do. */
function Generated(): ClassDecorator {
  return (target) => {
    const prototype = target.prototype as { effects: Effects; create?: unknown };
    Object.defineProperty(prototype, 'create', {
      configurable: true,
      writable: true,
      value: function create(this: { effects: Effects }, { name }: NamedBody): Promise<Effect> {
        return this.effects.write(name);
      },
    });
    Body()(prototype, 'create', 0);
    Post()(prototype, 'create', Object.getOwnPropertyDescriptor(prototype, 'create')!);
  };
}

/** One controller for each order of the three decorators, listed from the bottom up, as they are applied. */
const ORDERS = ['ICG', 'IGC', 'CIG', 'CGI', 'GIC', 'GCI'] as const;

const ordered: Type[] = ORDERS.map((order) => {
  class OrderedController {
    constructor(readonly effects: Effects) {}
  }
  Reflect.defineMetadata('design:paramtypes', [Effects], OrderedController);
  const decorators: Record<string, ClassDecorator> = {
    I: Idempotent() as ClassDecorator,
    C: Controller(order),
    G: Generated(),
  };
  for (const letter of order) decorators[letter]?.(OrderedController);
  return OrderedController;
});

/** A mixin: the base class is made by a function, and its handlers are inherited. */
function effectsAt(): abstract new (effects: Effects) => object {
  @Injectable()
  abstract class Base {
    constructor(readonly effects: Effects) {}

    @Post()
    create(@Body() { name }: NamedBody): Promise<Effect> {
      return this.effects.write(name);
    }
  }
  return Base;
}

@Idempotent()
@Controller('mixin')
class MixinController extends effectsAt() {}
Reflect.defineMetadata('design:paramtypes', [Effects], MixinController);

run({ controllers: [...ordered, MixinController] });
