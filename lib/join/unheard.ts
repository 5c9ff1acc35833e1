import { Logger } from '@nestjs/common';
import type { AfterCommitWork } from '../core/ambient.js';

const logger = new Logger('Idempotency');

/** Runs what can no longer change what becomes of the request; what it throws is logged. */
export async function unheard(work: AfterCommitWork): Promise<void> {
  try {
    await work();
  } catch (error) {
    logger.error(
      'A subscriber, or work for after the commit, failed; what becomes of the request was settled before.',
      stackOf(error),
    );
  }
}

export function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
