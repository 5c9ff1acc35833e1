const SIGNALS = ['SIGINT', 'SIGTERM'] as const;
const PARENT_CHECK_MS = 500;

/** Runs `stop` at the first signal that asks this process to end. A second one ends it at once. */
export function onShutdown(stop: () => void): void {
  const stopOnce = (): void => {
    for (const signal of SIGNALS) process.removeListener(signal, stopOnce);
    clearInterval(watch);
    stop();
  };
  for (const signal of SIGNALS) process.on(signal, stopOnce);
  const watch = onOrphaned(stopOnce);
}

/**
 * npm hands signals to the shell that it runs its scripts with, and that shell just ends: to what npm started,
 * the end of its parent is the signal.
 */
function onOrphaned(listener: () => void): NodeJS.Timeout | undefined {
  if (process.env.npm_lifecycle_event === undefined) return undefined;
  const parent = process.ppid;
  return setInterval(() => {
    if (process.ppid !== parent) listener();
  }, PARENT_CHECK_MS).unref();
}
