/** How the handler ended, seen from outside all interceptors. */
export type HandlerEnd =
  /** It was never entered: a pipe or an upload limit refused the request. */
  | 'not-begun'
  | 'returned'
  | 'threw'
  /** Its Observable was cancelled, or its response broke off. */
  | 'broken';

/** Which responses become the recorded answer. */
export interface StoragePolicy {
  /** Whether a response with this status is recorded. Never asked about 500 and above. */
  isStored(status: number): boolean;
}

/** What becomes of a run. */
export type Disposition =
  { readonly kind: 'complete'; readonly handler: 'returned' | 'threw' } | { readonly kind: 'release' };

/**
 * Decides whether a run commits with its response as the recorded answer or is rolled back with nothing recorded.
 * A response under 500 that the handler produced, thrown or returned, is the result of the operation.
 */
export function disposition(handler: HandlerEnd, status: number, policy: StoragePolicy): Disposition {
  const produced = handler === 'returned' || handler === 'threw';
  return produced && status < 500 && policy.isStored(status)
    ? { kind: 'complete', handler }
    : { kind: 'release' };
}
