/** Where the requests of a load come from, and with that what their answers must be. */
export type LoadSource =
  /** A new key and a new order each time. */
  | { readonly kind: 'first'; readonly wallets: number }
  /** What the last load that was told to remember had sent, one after the other: the same answers must come. */
  | { readonly kind: 'again' }
  /** One body under new keys of a series: random ones, or keys that begin with the time, like a UUID of version 7. */
  | {
      readonly kind: 'series';
      readonly series: string;
      readonly body: string;
      readonly keys?: 'random' | 'by-time';
      /** Each request is of one of so many clients. Default: all are of one. */
      readonly clients?: number;
    }
  /** Keys of a series of that size that are recorded with this answer, each only once, from all over it; some are skipped. */
  | {
      readonly kind: 'recorded';
      readonly series: string;
      readonly size: number;
      /** The clients that the records are of, in turn. */
      readonly clients: number;
      readonly skip: number;
      readonly body: string;
      readonly expected: string;
    }
  /** Always this request, whose answer must be the same each time. */
  | { readonly kind: 'same'; readonly body: string; readonly key: string };

/** One load on one application. */
export interface Load {
  readonly port: number;
  readonly path: string;
  readonly connections: number;
  readonly source: LoadSource;
  /** Ends after so many requests, or after so much time, whichever is first. */
  readonly requests?: number;
  readonly milliseconds?: number;
  /** Requests per second at a constant rate, whatever the answers take. Without it each connection asks on when it was answered. */
  readonly rate?: number;
  /** Whether to keep what was sent and answered, for {@link LoadSource} `again`. */
  readonly remember?: boolean;
  /** Whether the result has the time that each request took. */
  readonly latencies?: boolean;
}

/** What became of a load in which every answer was right. Times are milliseconds. */
export interface LoadResult {
  readonly requests: number;
  readonly elapsed: number;
  readonly p50: number;
  readonly p99: number;
  readonly mean: number;
  /** What each took, in the order of the answers, where that was asked for. */
  readonly latencies: readonly number[];
  /** CPU time of the process that made the load. */
  readonly cpu: number;
  /** Body of the last answer. */
  readonly body: string;
}

/** Requests to several applications, one at a time: so whatever else the machine does falls on all alike. */
export interface Turns {
  readonly path: string;
  readonly apps: readonly Turn[];
  /** Each asks every application once for something new, in random order, and then for the same again. */
  readonly cycles: number;
  readonly wallets: number;
  readonly seed: number;
}

/** One of the applications that are asked in turn. */
interface Turn {
  readonly port: number;
  /** Whether it is asked again; one that would do its work again is not. */
  readonly replays: boolean;
}

/** Milliseconds that each application took for each request; every answer was right. */
export interface TurnsResult {
  readonly first: readonly (readonly number[])[];
  readonly replay: readonly (readonly number[])[];
}

/** What the process answers. */
export type LoadReply = { readonly id: number } & (
  { readonly result: LoadResult } | { readonly times: TurnsResult } | { readonly failure: string }
);

/** What the process is asked. `end` ends a load before its time. */
export type LoadOrder =
  | { readonly id: number; readonly load: Load }
  | { readonly id: number; readonly turns: Turns }
  | { readonly end: number };
