import type { ProtectedRoute } from '../transports/http/routes.js';
import type { RouteSettings } from '../http/route-settings.js';

/** A protected route, and how swagger's decorators are put on it. */
export interface DescribedRoute extends ProtectedRoute {
  readonly settings: RouteSettings;
  readonly apply: (
    decorator: (target: object, name: string, descriptor: { value: unknown }) => unknown,
  ) => void;
}
