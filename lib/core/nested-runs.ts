/** What runs inside another execution threw: it tells how they ended, and nothing of the execution around them. */
const thrown = new WeakSet<object>();

/** Notes what a run threw to the execution that it is a step of. */
export function noteThrownByStep(error: unknown): void {
  if (isObject(error)) thrown.add(error);
}

/** Whether an error came out of a run that is a step of the one that sees it. */
export function isThrownByStep(error: unknown): boolean {
  return isObject(error) && thrown.has(error);
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null;
}
