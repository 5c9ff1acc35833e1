import type { CallHandler, ExecutionContext, NestInterceptor } from '@nestjs/common';
import type { ModulesContainer } from '@nestjs/core';
import type { Observable } from 'rxjs';
import { lateClaimOf } from './late-claim.js';
import * as nest from './nest-metadata.js';
import { protectedRoutes } from './protected-routes.js';

/** Stands innermost of all interceptors: upload interceptors have read the body, pipes and handler come next. */
class LateClaimInterceptor implements NestInterceptor {
  intercept(context: ExecutionContext, next: CallHandler): Observable<unknown> {
    const request: unknown = context.switchToHttp().getRequest();
    return lateClaimOf(request)?.arrive(context, next) ?? next.handle();
  }
}

const innermost = new LateClaimInterceptor();

/**
 * Puts it behind the interceptors of every marked handler, in whatever order its decorators are. Must be called before the
 * routes are built. Handlers belong to no application: one that has it already keeps it.
 */
export function standInnermost(modules: ModulesContainer): void {
  for (const { handler } of protectedRoutes(modules)) {
    const others = (Reflect.getMetadata(nest.INTERCEPTORS, handler) ?? []) as unknown[];
    if (!others.includes(innermost))
      Reflect.defineMetadata(nest.INTERCEPTORS, [...others, innermost], handler);
  }
}
