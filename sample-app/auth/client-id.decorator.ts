import { createParamDecorator, type ExecutionContext } from '@nestjs/common';
import type { AuthenticatedRequest } from './authenticated-request.js';

/** Id of the client that the guard recognised. */
export const ClientId = createParamDecorator((_data: undefined, context: ExecutionContext) => {
  const { user } = context.switchToHttp().getRequest<AuthenticatedRequest>();
  if (user === undefined) throw new Error('@ClientId() needs a guard of this folder on its route');
  return user.id;
});
