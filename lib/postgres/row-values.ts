import type { RecordedHeader } from '../core/record.js';

/** A `timestamptz` as an application has it read: as a Date unless it has set another type parser. */
export type Time = Date | string | { toISOString?(): string; toString(): string };

/** The same as a Date: applications have times read as text, to keep microseconds, or as objects of a library of theirs. */
export function timeOf(value: Time): Date {
  if (value instanceof Date) return value;
  if (typeof value === 'string') return new Date(value);
  return new Date(value.toISOString?.() ?? value.toString());
}

/** Recorded headers, also where an application has `json` read as text, to parse it in its own way. */
export function headersOf(value: RecordedHeader[] | string | null | undefined): RecordedHeader[] {
  return typeof value === 'string' ? (JSON.parse(value) as RecordedHeader[]) : (value ?? []);
}
