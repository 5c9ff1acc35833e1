import type { ReplayedRecord } from '../core/engine.js';

/** 204 and 205 have no body, and 206 has a part of one: none of them can stand for another status, nor another for them. */
const ABOUT_THE_BODY: ReadonlySet<number> = new Set([204, 205, 206]);

/** Whether a success could as well be told by another status. */
export function isExchangeable(status: unknown): boolean {
  if (typeof status !== 'number' || !Number.isInteger(status)) return false;
  return status >= 200 && status < 300 && !ABOUT_THE_BODY.has(status);
}

/** The status of a replay. What a handler threw keeps its own, even where a filter told it as a success. */
export function replayStatus(
  { status, response }: Pick<ReplayedRecord, 'status' | 'response'>,
  asked: 'original' | number,
): number {
  const isSuccess = status === 'completed' && isExchangeable(response.status);
  return isSuccess && asked !== 'original' ? asked : response.status;
}
