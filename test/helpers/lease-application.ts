import type { IdempotentRouteOptions, Reconciliation, UnresolvedOutcome } from 'nestjs-pg-idempotency';
import type { Program } from './application-process.js';
import { Application, type ApplicationOptions, type Scene } from './application.js';

/** Milliseconds; the shortest lease there is. */
export const LEASE = 1_000;

const ROUTES = {
  refuse: { mode: 'lease', lease: LEASE },
  rerun: { mode: 'lease', lease: LEASE, onOutcomeUnknown: 'rerun' },
  long: { mode: 'lease', lease: '30s', onOutcomeUnknown: 'rerun' },
  brief: { mode: 'lease', lease: LEASE, onOutcomeUnknown: 'rerun', maxDuration: 1_500 },
  transaction: {},
  'brief-transaction': { maxDuration: 1_500 },
} as const satisfies Record<string, IdempotentRouteOptions>;

export type Route = keyof typeof ROUTES | 'reconcile';

/** `onOutcomeUnknown` of the route `reconcile`. */
export type Reconcile = (unresolved: UnresolvedOutcome) => Reconciliation | Promise<Reconciliation>;

export interface LeaseApplicationOptions extends ApplicationOptions {
  /** Default: the outcome stays unknown. */
  readonly reconcile?: Reconcile;
}

/** Starts an {@link Application} with lease routes. By default it rejects duplicates at once. */
export function startLeaseApplication({
  reconcile = () => ({ outcome: 'unknown' }),
  ...options
}: LeaseApplicationOptions): Promise<Application> {
  const reconciled: IdempotentRouteOptions = {
    mode: 'lease',
    lease: LEASE,
    maxDuration: 1_500,
    onOutcomeUnknown: reconcile,
  };
  return Application.start({
    handler: orderStepByStep,
    ...options,
    routes: { ...ROUTES, reconcile: reconciled, ...options.routes },
    idempotency: { whenInProgress: 'reject', ...options.idempotency },
  });
}

/** The same, for `startApplicationProcess`. */
export function leaseProgram(options: LeaseApplicationOptions): Program {
  return { module: './test/helpers/lease-application.ts', start: 'startLeaseApplication', options };
}

/** Writes an order in a (fenced) transaction. Places: `handler`, `transaction` and `end`. */
async function orderStepByStep({ application, execution, orders }: Scene): Promise<unknown> {
  await application.pass('handler');
  const order = await execution.transaction(async () => {
    const saved = await orders.save({ item: `attempt ${execution.attempt}`, price: 1 });
    application.tell('wrote');
    await application.pass('transaction');
    return saved;
  });
  application.tell('left');
  await application.pass('end');
  return order;
}
