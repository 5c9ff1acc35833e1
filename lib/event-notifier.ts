import { Logger } from '@nestjs/common';
import type { IdempotencyEvent, IdempotencyObserver, Notify } from './core/events.js';

/** What an operator wants to read even without an observer. */
const LOGGED: ReadonlySet<IdempotencyEvent['type']> = new Set([
  'taken-over',
  'fence-lost',
  'outcome-unknown',
]);

/** Tells the observer and, of what is out of the ordinary, Nest's logger. An observer cannot break a request. */
export function notifier(observer: IdempotencyObserver | undefined): Notify {
  const logger = new Logger('Idempotency');
  let hasComplained = false;
  const complain = (error: unknown): void => {
    if (!hasComplained) logger.error('The observer failed; this is said once.', String(error));
    hasComplained = true;
  };
  return (event) => {
    if (LOGGED.has(event.type) && 'attempt' in event) {
      logger.warn(`${event.type} on ${event.endpoint}, attempt ${event.attempt}`);
    }
    try {
      const observed: unknown = observer?.observe(event);
      // It is declared to return nothing, and an asynchronous one fits: its rejection must not end the process.
      if (observed) Promise.resolve(observed).catch(complain);
    } catch (error) {
      complain(error);
    }
  };
}
