/** Calls the rewards API as one of its clients. */
export class Api {
  #credentials;

  constructor({ apiKey, secret }) {
    this.#credentials = { 'X-API-Key': apiKey, 'X-API-Secret': secret };
  }

  /** Places an order, and says what came of it: `lost` when no answer arrived. */
  async order(key, order, { loseResponse = false } = {}) {
    const started = performance.now();
    const outcome = await this.#post(key, order, loseResponse).catch(() => ({ lost: true }));
    return { ...outcome, milliseconds: Math.round(performance.now() - started) };
  }

  async wallet() {
    return this.#get('/api/v1/wallet');
  }

  async orders() {
    return this.#get('/api/v1/orders');
  }

  async #post(key, order, loseResponse) {
    const response = await fetch('/api/v1/orders', {
      method: 'POST',
      headers: {
        ...this.#credentials,
        'Content-Type': 'application/json',
        'Idempotency-Key': key,
        // The server breaks the connection off in place of its answer, once everything is committed.
        ...(loseResponse ? { 'X-Lose-Response': 'true' } : {}),
      },
      body: JSON.stringify(order),
    });
    const body = await response.json();
    return {
      status: response.status,
      replayed: response.headers.get('Idempotency-Replayed') === 'true',
      id: body.id,
      error: body.code ?? body.error?.code ?? body.message,
    };
  }

  async #get(path) {
    return (await fetch(path, { headers: this.#credentials })).json();
  }
}
