import { Catch, Inject, type ExceptionFilter, type OnModuleInit } from '@nestjs/common';
import { ModulesContainer } from '@nestjs/core';
import { IdempotencyUsageError } from '../../core/errors.js';
import { FILTERS } from '../../http/nest-metadata.js';

/** The options of the module, as the container knows them. */
export const OPTIONS = Symbol.for('nestjs-pg-idempotency:options');
/** On the container of an application whose handlers are protected. */
const PROTECTS = Symbol.for('nestjs-pg-idempotency:protects');

/** Notes that marked handlers of this application are protected. */
export function noteProtection(modules: ModulesContainer): void {
  Reflect.defineMetadata(PROTECTS, true, modules);
}

/** @throws IdempotencyUsageError when nothing protects the marked handlers of this application. */
export function assertProtection(modules: ModulesContainer): void {
  if (Reflect.hasMetadata(PROTECTS, modules)) return;
  const options = [...modules.values()].map(({ providers }) => providers.get(OPTIONS)).find(Boolean);
  if (!options) {
    throw new IdempotencyUsageError(
      'IDEMPOTENCY_MODULE_MISSING',
      'the application has handlers with @Idempotent(), and nothing protects them. Import IdempotencyModule.forRoot(…) or ' +
        'forRootAsync(…) in its root module; in a test, in the testing module that is initialised.',
    );
  }
  throw new IdempotencyUsageError(
    'IDEMPOTENCY_MODULE_NOT_STATIC',
    `the options of IdempotencyModule.forRootAsync(…) depend on ${chainTo(options)}, which exists only while a request is ` +
      'handled. Inject providers of the default scope: the module is set up once, when the application boots.',
  );
}

/** The part of Nest's description of a provider that tells what it depends on. */
interface Dependent {
  readonly name: string | symbol | (abstract new () => unknown);
  isDependencyTreeStatic(): boolean;
  getCtorMetadata?(): (Dependent | undefined)[];
}

/** The provider that is not static, by way of those that inject it: `Logger, which injects REQUEST`. */
function chainTo(dependent: Dependent, seen = new Set<Dependent>()): string {
  seen.add(dependent);
  const next = (dependent.getCtorMetadata?.() ?? []).find(
    (each) => each && !seen.has(each) && !each.isDependencyTreeStatic(),
  );
  if (!next) return 'a provider of another scope';
  const { name } = next;
  const title = typeof name === 'function' ? name.name : String(name);
  const further = chainTo(next, seen);
  return further === 'a provider of another scope' ? title : `${title}, which injects ${further}`;
}

/** Nobody throws it: the filter below never catches. */
abstract class NeverThrown {
  abstract readonly isThrown: never;
}

/**
 * Fails the boot of an application that marks handlers and protects none of them. Without the module none of the library's
 * code runs, so the decorator hangs this on the class. It is a filter because one that catches nothing costs a request
 * nothing. A unit test that compiles a module without initialising it hears nothing.
 */
@Catch(NeverThrown)
class ModuleCheck implements ExceptionFilter, OnModuleInit {
  constructor(@Inject(ModulesContainer) private readonly modules: ModulesContainer) {}

  onModuleInit(): void {
    assertProtection(this.modules);
  }

  catch(exception: unknown): never {
    throw exception;
  }
}

/** Has an application that has this class or method, and does not protect it, fail at boot. Inherited filters stay. */
export function requireProtection(target: object): void {
  const filters = (Reflect.getMetadata(FILTERS, target) ?? []) as unknown[];
  if (!filters.includes(ModuleCheck)) Reflect.defineMetadata(FILTERS, [...filters, ModuleCheck], target);
}
