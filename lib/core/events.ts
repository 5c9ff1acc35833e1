import type { RecordMode } from './record.js';

/** What every event says: whose request, for which endpoint. Keys and bodies are left out, so that events can be logged. */
interface EventBase<Type extends string> {
  readonly type: Type;
  readonly client: string;
  readonly endpoint: string;
}

/** Something that happened to a request or a record. Told apart by `type`. */
export type IdempotencyEvent =
  /**
   * The handler ran, or a reconcile handler found out what had become of it, and the response was recorded. `duration` is
   * milliseconds since the claim.
   */
  | (EventBase<'executed'> & {
      readonly mode: RecordMode;
      readonly attempt: number;
      readonly status: number;
      readonly duration: number;
    })
  /** A duplicate got the recorded response. */
  | (EventBase<'replayed'> & { readonly status: number })
  /** A duplicate waited for a running request, `duration` milliseconds. How it ended is an event of its own. */
  | (EventBase<'waited'> & { readonly duration: number })
  /** A request was refused with the error of that code. */
  | (EventBase<'rejected'> & { readonly code: string })
  /** The identity was given back with nothing recorded. */
  | (EventBase<'released'> & { readonly mode: RecordMode; readonly attempt: number })
  /** An attempt followed one whose outcome is unknown. */
  | (EventBase<'taken-over'> & { readonly attempt: number })
  /** An owner found that it no longer holds its lease. */
  | (EventBase<'fence-lost'> & { readonly attempt: number })
  /** An attempt ended, and it is not known whether it took effect. In transaction mode the next request finds out. */
  | (EventBase<'outcome-unknown'> & { readonly mode: RecordMode; readonly attempt: number })
  /** A run of the purge deleted so many records. */
  | { readonly type: 'purged'; readonly records: number };

/**
 * Hears of everything that happens. It is called synchronously on the request's path: hand on what takes time. What it
 * throws is logged once and otherwise ignored.
 */
export interface IdempotencyObserver {
  observe(event: IdempotencyEvent): void;
}

/** Tells one observer, or nobody. */
export type Notify = (event: IdempotencyEvent) => void;
