/** The signal of an execution, made when a handler asks for it: few do, and it is not cheap. */
export class ExecutionSignal {
  #controller: AbortController | undefined;
  #reason: (() => Error) | undefined;

  get signal(): AbortSignal {
    if (!this.#controller) {
      this.#controller = new AbortController();
      if (this.#reason) this.#controller.abort(this.#reason());
    }
    return this.#controller.signal;
  }

  /** Only the first reason counts. */
  abort(reason: () => Error): void {
    if (this.#reason) return;
    this.#reason = reason;
    this.#controller?.abort(reason());
  }
}
