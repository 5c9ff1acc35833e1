import { idempotencyError, IdempotencyFailure, IdempotencyUsageError } from '../core/errors.js';
import type { RecordedResponse } from '../core/record.js';

/** What JSON has no word for: as a member it is left out, in an array it becomes null. */
type Unwritten = undefined | symbol | ((...args: never[]) => unknown);

type Atom = string | number | boolean | null;

/**
 * What is left of a value that was written as JSON and read again: a `Date` becomes a string, whatever has a `toJSON` becomes
 * what that returns, and members that are undefined or functions are gone. What JSON refuses, a `bigint`, is never.
 */
export type Recorded<T> = unknown extends T
  ? T
  : T extends { toJSON(...args: never[]): infer Written }
    ? Recorded<Written>
    : T extends Atom | undefined
      ? T
      : T extends bigint | Unwritten
        ? never
        : T extends readonly unknown[]
          ? { -readonly [Index in keyof T]: RecordedItem<T[Index]> }
          : { -readonly [Name in keyof T as MemberName<T, Name>]: Recorded<Exclude<T[Name], Unwritten>> } & {
              -readonly [Name in keyof T as OptionalName<T, Name>]?: Recorded<Exclude<T[Name], Unwritten>>;
            };

type RecordedItem<Item> = unknown extends Item
  ? Item
  : Recorded<Exclude<Item, Unwritten>> | (Extract<Item, Unwritten> extends never ? never : null);

/** Members that are always written. */
type MemberName<T, Name extends keyof T> = Name extends string | number
  ? Extract<T[Name], Unwritten> extends never
    ? Name
    : unknown extends T[Name]
      ? Name
      : never
  : never;

/** Members that are written where they have a value. */
type OptionalName<T, Name extends keyof T> = Name extends string | number
  ? unknown extends T[Name]
    ? never
    : Extract<T[Name], Unwritten> extends never
      ? never
      : Exclude<T[Name], Unwritten> extends never
        ? never
        : Name
  : never;

const JSON_TYPE = [['content-type', 'application/json; charset=utf-8']] as const;

/**
 * A value as it is recorded: its JSON, or nothing at all for undefined.
 *
 * @throws IdempotencyUsageError `IDEMPOTENCY_VALUE_NOT_RECORDABLE`, or IdempotencyFailure `IDEMPOTENCY_RESPONSE_TOO_LARGE`.
 */
export function recordedValue(value: unknown, maxSize: number): RecordedResponse {
  if (value === undefined) return { status: 204, headers: [], body: Buffer.alloc(0) };
  const body = Buffer.from(jsonOf(value));
  if (body.length > maxSize) throw new IdempotencyFailure(idempotencyError('IDEMPOTENCY_RESPONSE_TOO_LARGE'));
  return { status: 200, headers: JSON_TYPE, body };
}

/**
 * The value that was recorded. A recording of another's making, of a reconcile handler or `settle`, counts by its body.
 *
 * @throws IdempotencyUsageError `IDEMPOTENCY_VALUE_UNREADABLE` when that is no JSON.
 */
export function valueOf({ body }: RecordedResponse): unknown {
  if (body.length === 0) return undefined;
  try {
    return JSON.parse(body.toString());
  } catch (cause) {
    throw new IdempotencyUsageError(
      'IDEMPOTENCY_VALUE_UNREADABLE',
      'the recorded answer is no JSON: it was settled by hand as something else. Settle a run with a body that is JSON.',
      { cause },
    );
  }
}

function jsonOf(value: unknown): string {
  let cause: unknown;
  try {
    const text = JSON.stringify(value) as string | undefined;
    if (text !== undefined) return text;
  } catch (error) {
    cause = error;
  }
  throw new IdempotencyUsageError(
    'IDEMPOTENCY_VALUE_NOT_RECORDABLE',
    'what the work returned cannot be recorded, since JSON cannot hold it (a BigInt, a cycle, a function). Return plain ' +
      'values, or nothing.',
    { cause },
  );
}
