import { FINGERPRINT_VERSION } from './fingerprint.js';
import { idempotencyError, IdempotencyFailure, type IdempotencyError } from './errors.js';
import { FORMAT_VERSION, type IdempotencyRecord } from './record.js';
import type { Claim, Execution, IdempotencyStore } from './store.js';

/** What is to be done with a request. */
export type Decision =
  | { readonly kind: 'run'; readonly execution: Execution }
  | { readonly kind: 'replay'; readonly record: IdempotencyRecord }
  | { readonly kind: 'reject'; readonly error: IdempotencyError; readonly cause?: unknown };

/** Claims the identity and decides: run, replay or reject. Never throws for what the store reports. */
export async function decide(store: IdempotencyStore, claim: Claim): Promise<Decision> {
  try {
    const outcome = await store.claim(claim);
    switch (outcome.kind) {
      case 'claimed':
        return { kind: 'run', execution: outcome.execution };
      case 'in-progress':
        return { kind: 'reject', error: idempotencyError('IDEMPOTENCY_IN_PROGRESS') };
      case 'recorded':
        return judge(outcome.record, claim.fingerprint);
    }
  } catch (error) {
    if (error instanceof IdempotencyFailure)
      return { kind: 'reject', error: error.error, cause: error.cause };
    throw error;
  }
}

function judge(record: IdempotencyRecord, fingerprint: Buffer): Decision {
  const isNewer = record.formatVersion > FORMAT_VERSION || (record.fingerprint[0] ?? 0) > FINGERPRINT_VERSION;
  if (isNewer || record.mode !== 'transaction') {
    return { kind: 'reject', error: idempotencyError('IDEMPOTENCY_RECORD_UNREADABLE') };
  }
  return record.fingerprint.equals(fingerprint)
    ? { kind: 'replay', record }
    : { kind: 'reject', error: idempotencyError('IDEMPOTENCY_KEY_REUSED') };
}
