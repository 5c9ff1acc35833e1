/** Version of the row's contents. A reader refuses what is newer than it knows. */
export const FORMAT_VERSION = 1;

/**
 * Bytes of the largest body that can be recorded: pg reads `bytea` as hexadecimal text, and a text of Node.js has at most
 * 2^29 - 24 characters (`buffer.constants.MAX_STRING_LENGTH`).
 */
export const MAX_BODY_BYTES = 255 * 1024 * 1024;

/**
 * `processing`: claimed; `completed`: the handler returned; `failed`: it threw and that error is the answer, or its
 * response could not be kept.
 */
export type RecordStatus = 'processing' | 'completed' | 'failed';

/** How the handler ran. */
export type RecordMode = 'transaction' | 'lease';

/** A header as it is stored: lower-case name, and its value, its values, or null where the handler removed it. */
export type RecordedHeader = readonly [name: string, value: string | readonly string[] | null];

/** The answer of the first request, in identity coding. */
export interface RecordedResponse {
  readonly status: number;
  readonly headers: readonly RecordedHeader[];
  readonly body: Buffer;
}

/** A finished record, as a duplicate finds it. */
export interface IdempotencyRecord {
  readonly status: Exclude<RecordStatus, 'processing'>;
  readonly fingerprint: Buffer;
  readonly formatVersion: number;
  /** Undefined for a tombstone: the effect happened, and its response could not be kept. */
  readonly response: RecordedResponse | undefined;
  /** When the original was claimed, by the database's clock. */
  readonly createdAt: Date;
}
