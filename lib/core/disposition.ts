import type { GiveUp } from './store.js';

/** How the handler ended, seen from outside all interceptors. */
export type HandlerEnd =
  /** It was never entered: a pipe or an upload limit refused the request. */
  | 'not-begun'
  /** It was never entered, and its stream ended as if it had been: something answered in its place, or hides it. */
  | 'unseen'
  | 'returned'
  | 'threw'
  /** It threw, and said that nothing happened. */
  | 'released'
  /** Its Observable was cancelled, it ran too long, or the database ended its transaction. */
  | 'broken'
  /** It returned, but its body broke off or is too large. */
  | 'unkeepable';

/** Which responses become the recorded answer. */
export interface StoragePolicy {
  /** Whether a response with this status is recorded. Asked only about 200 to 499. */
  isStored(status: number): boolean;
  /**
   * Whether what was thrown can be recorded. In transaction mode its writes have to be undone first, for which there is a
   * savepoint only where a status of an error is stored; an exception filter may give an error any status.
   */
  readonly storesErrors: boolean;
}

/** What becomes of a run. */
export type Disposition =
  | { readonly kind: 'complete'; readonly handler: 'returned' | 'threw' }
  | { readonly kind: 'release' }
  | { readonly kind: 'give-up'; readonly why: GiveUp };

/**
 * Decides whether a run's response becomes the recorded answer. A final response under 500 that the handler produced, thrown or
 * returned, is the result of the operation; whatever else it does once it began leaves the outcome open.
 */
export function disposition(handler: HandlerEnd, status: number, policy: StoragePolicy): Disposition {
  switch (handler) {
    case 'not-begun':
    case 'released':
      return { kind: 'release' };
    case 'unseen':
      // What was not seen may have run, and must not be said to be undone where it is not known.
      return isSuccess(status) ? { kind: 'give-up', why: 'unseen' } : { kind: 'release' };
    case 'broken':
      return { kind: 'give-up', why: 'unsettled' };
    case 'unkeepable':
      return { kind: 'give-up', why: 'unkeepable' };
    default:
      return isRecordable(handler, status, policy)
        ? { kind: 'complete', handler }
        : { kind: 'give-up', why: 'unsettled' };
  }
}

/** Whether a client would take it for one: redirects too. */
export function isSuccess(status: number): boolean {
  return status < 400;
}

function isRecordable(handler: 'returned' | 'threw', status: number, policy: StoragePolicy): boolean {
  if (handler === 'threw' && !policy.storesErrors) return false;
  return status >= 200 && status < 500 && policy.isStored(status);
}
