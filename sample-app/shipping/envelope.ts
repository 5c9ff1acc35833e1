/** What every success of this API looks like. */
export interface Envelope<Data> {
  readonly success: true;
  readonly data: Data;
}

/** What every error of this API looks like. */
export interface ErrorEnvelope {
  readonly success: false;
  readonly error: { readonly code: string; readonly message: string };
}

/** Wraps a success. */
export function success<Data>(data: Data): Envelope<Data> {
  return { success: true, data };
}

/** Wraps an error. */
export function failure(code: string, message: string): ErrorEnvelope {
  return { success: false, error: { code, message } };
}
