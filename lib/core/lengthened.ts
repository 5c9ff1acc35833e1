/**
 * Texts one after another, each behind its length in bytes, so that no two lists of texts give the same. The digits between
 * them also keep half a surrogate pair at the end of one from meeting its other half at the beginning of the next.
 */
export function lengthened(...texts: readonly string[]): string {
  let all = '';
  for (const text of texts) all += `${Buffer.byteLength(text)}:${text}`;
  return all;
}
