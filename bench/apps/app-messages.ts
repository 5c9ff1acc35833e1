/** What an application's process can be asked for besides HTTP. */
export interface AppRequests {
  /** Memory after a garbage collection, in bytes. Needs `--expose-gc`. */
  readonly memory: { readonly heap: number; readonly rss: number };
  /** How many are open. */
  readonly connections: number;
  /** Deletes the expired records; how many. */
  readonly purge: number;
  /** Lets the requests go that are being held. */
  readonly release: null;
  /** The SQL sent since it was last asked for. */
  readonly trace: readonly TracedStatement[];
}

/** A statement, with its parameters as PostgreSQL's text format has them. */
export interface TracedStatement {
  readonly text: string;
  readonly values: readonly (string | null)[];
}

/** What the parent sends. */
export interface AppOrder {
  readonly id: number;
  readonly request: keyof AppRequests;
}

/** What the process sends. The first message, without an id, is the port. */
export interface AppReply {
  readonly id?: number;
  readonly port?: number;
  readonly result?: AppRequests[keyof AppRequests];
  readonly failure?: string;
}
