import type { Fetch, FetchInit } from './declaration.js';
import type { PreparedRequest } from './prepared-request.js';
import { follow } from './redirects.js';

/** An answer that has been read to its end. */
export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** How an attempt ended. */
export type Attempted =
  | { readonly kind: 'answer'; readonly answer: Answer }
  | { readonly kind: 'network-failed'; readonly cause: unknown }
  | { readonly kind: 'timed-out' }
  | { readonly kind: 'aborted' };

/**
 * Sends the request once and reads the answer to its end, because an answer that is cut tells nothing of the write.
 * Ends in time also where `send` does not listen to its signal.
 *
 * @param limit - Milliseconds.
 */
export async function attemptOnce(
  send: Fetch,
  { url, init }: PreparedRequest,
  limit: number,
  stop: AbortSignal,
): Promise<Attempted> {
  const controller = new AbortController();
  let interrupt!: (attempted: Attempted) => void;
  const interrupted = new Promise<Attempted>((resolve) => (interrupt = resolve));
  const onStop = (): void => interrupt({ kind: 'aborted' });
  const timer = setTimeout(() => interrupt({ kind: 'timed-out' }), limit);
  stop.addEventListener('abort', onStop);
  try {
    const answered = exchange(send, url, {
      ...init,
      // Its own for each attempt: whoever stands in for `fetch` may add to them.
      headers: { ...init.headers },
      signal: controller.signal,
    });
    return await Promise.race([answered, interrupted]);
  } finally {
    clearTimeout(timer);
    stop.removeEventListener('abort', onStop);
    // Frees the connection of an answer that nobody waits for any more.
    controller.abort();
  }
}

async function exchange(send: Fetch, url: string, init: FetchInit): Promise<Attempted> {
  try {
    const response = await follow(send, url, init);
    const { status, headers } = response;
    const bytes = new Uint8Array(await response.arrayBuffer());
    return { kind: 'answer', answer: { status, headers, bytes } };
  } catch (cause) {
    return { kind: 'network-failed', cause };
  }
}
