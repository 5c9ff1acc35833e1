/** An attempt in lease mode whose outcome is not known: its owner died, or failed in a way that says nothing. */
export interface UnresolvedOutcome {
  readonly client: string;
  readonly endpoint: string;
  readonly key: string;
  /** Number of the attempt whose outcome is unknown; 1 for the first. */
  readonly attempt: number;
  /** When the identity was first claimed, by the database's clock. */
  readonly createdAt: Date;
  /** The key that `deriveKey(name)` gave each attempt, to ask an outside service with. */
  deriveKey(name: string): string;
}

/** A response that is recorded without having been sent. */
export interface SettledResponse {
  /** Default: 200. */
  readonly status?: number;
  /** Sent as JSON; bytes are sent as they are. Absent: no body. */
  readonly body?: unknown;
  /** Header names and values. */
  readonly headers?: Readonly<Record<string, string>>;
}

/** What a reconcile handler found out. */
export type Reconciliation =
  /** It took effect: this is its answer from now on. */
  | { readonly outcome: 'completed'; readonly response: SettledResponse }
  /** Nothing happened: the request runs now. */
  | { readonly outcome: 'released' }
  /** Still not known: the client is refused, as with `'refuse'`, and a later request asks again. */
  | { readonly outcome: 'unknown' };

/** Finds out, for example from the outside service, what became of an attempt. One runs at a time per identity. */
export type ReconcileHandler = (unresolved: UnresolvedOutcome) => Reconciliation | Promise<Reconciliation>;

/**
 * What happens to a request whose earlier attempt has an unknown outcome: it is refused, it runs again, or a handler finds
 * out.
 */
export type OutcomeUnknownPolicy = 'refuse' | 'rerun' | ReconcileHandler;
