/** Methods that write: only these can carry an idempotency key. */
export type WriteMethod = 'POST' | 'PUT' | 'PATCH' | 'DELETE';
/** Methods that are safe in the sense of RFC 9110, section 9.2.1: a retry does no harm. */
export type ReadMethod = 'GET' | 'HEAD' | 'OPTIONS';
/** The methods of an endpoint. */
export type HttpMethod = WriteMethod | ReadMethod;

const WRITES: readonly string[] = ['POST', 'PUT', 'PATCH', 'DELETE'] satisfies WriteMethod[];
const READS: readonly string[] = ['GET', 'HEAD', 'OPTIONS'] satisfies ReadMethod[];

/**
 * Whether a method writes. PUT and DELETE are idempotent by themselves, but sent again late they undo what others wrote
 * since.
 */
export function isWrite(method: string): method is WriteMethod {
  return WRITES.includes(method);
}

/** Whether it is a method at all, in capitals as HTTP wants it. */
export function isMethod(method: string): method is HttpMethod {
  return isWrite(method) || READS.includes(method);
}
