import { Body, Controller, Injectable, Post } from '@nestjs/common';
import { RouterExecutionContext } from '@nestjs/core/router/router-execution-context.js';
import { Idempotent } from 'nestjs-pg-idempotency';
import { Effects, run, type Effect, type NamedBody } from './base.js';

type Handler = (this: unknown, ...args: unknown[]) => unknown;

/** Puts a wrapper in a function's place that has its name and its metadata, as tracing libraries do. */
function traced(handler: Handler): Handler {
  const wrapper: Handler = function (...args) {
    console.log(`traced ${handler.name}`);
    return handler.apply(this, args);
  };
  Object.defineProperty(wrapper, 'name', { value: handler.name });
  for (const key of Reflect.getMetadataKeys(handler) as unknown[])
    Reflect.defineMetadata(key, Reflect.getMetadata(key, handler), wrapper);
  return wrapper;
}

function Traced(): MethodDecorator {
  return (_target, _name, descriptor) => {
    descriptor.value = traced(descriptor.value as Handler) as never;
  };
}

/** Wraps every method of a class. */
function TracedClass(): ClassDecorator {
  return ({ prototype }) => {
    for (const [name, descriptor] of Object.entries(Object.getOwnPropertyDescriptors(prototype))) {
      if (name === 'constructor') continue;
      Object.defineProperty(prototype, name, { ...descriptor, value: traced(descriptor.value as Handler) });
    }
  };
}

@Controller('methods')
class MethodsController {
  constructor(private readonly effects: Effects) {}

  @Traced()
  @Post('above')
  @Idempotent()
  above(@Body() { name }: NamedBody): Promise<Effect> {
    return this.effects.write(name);
  }

  @Post('below')
  @Idempotent()
  @Traced()
  below(@Body() { name }: NamedBody): Promise<Effect> {
    return this.effects.write(name);
  }
}

@TracedClass()
@Idempotent()
@Controller('class-above')
class ClassAboveController {
  constructor(private readonly effects: Effects) {}

  @Post()
  create(@Body() { name }: NamedBody): Promise<Effect> {
    return this.effects.write(name);
  }
}

@Idempotent()
@TracedClass()
@Controller('class-below')
class ClassBelowController {
  constructor(private readonly effects: Effects) {}

  @Post()
  create(@Body() { name }: NamedBody): Promise<Effect> {
    return this.effects.write(name);
  }
}

/** Puts a wrapper on the instance. */
@Injectable()
@Controller('instance')
class InstanceController {
  constructor(private readonly effects: Effects) {
    this.create = traced(this.create as Handler) as typeof this.create;
  }

  @Post()
  @Idempotent()
  create(@Body() { name }: NamedBody): Promise<Effect> {
    return this.effects.write(name);
  }
}

/** Binds its handler, as is done where handlers are handed around. */
@Controller('bound')
class BoundController {
  constructor(private readonly effects: Effects) {
    this.create = this.create.bind(this);
  }

  @Post()
  @Idempotent()
  create(@Body() { name }: NamedBody): Promise<Effect> {
    return this.effects.write(name);
  }
}

if (process.env['WRAP_ROUTER'] === 'yes') wrapRouter();

/** What instrumentation of Nest does: the router gets a wrapper in the handler's place. */
function wrapRouter(): void {
  const router = RouterExecutionContext.prototype as unknown as {
    create(instance: object, callback: Handler, ...rest: unknown[]): unknown;
  };
  const create = router.create;
  router.create = function (instance, callback, ...rest) {
    return create.call(this, instance, traced(callback), ...rest);
  };
}

run({
  controllers: [
    MethodsController,
    ClassAboveController,
    ClassBelowController,
    InstanceController,
    BoundController,
  ],
});
