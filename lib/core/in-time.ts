/**
 * What the work gives, if it does so in that many milliseconds; the work itself goes on.
 *
 * @throws Error naming `what` when it takes longer.
 */
export async function inTime<T>(milliseconds: number, what: string, work: T | Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took more than ${milliseconds} ms`)), milliseconds);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
