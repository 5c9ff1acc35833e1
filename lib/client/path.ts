/** The names of a path's parameters, in their order: `['ticketId']` of `/tickets/:ticketId/messages`. */
export type PathParameters<Path extends string> = string extends Path
  ? string[]
  : Path extends `${infer Segment}/${infer Rest}`
    ? [...ParametersOfSegment<Segment>, ...PathParameters<Rest>]
    : ParametersOfSegment<Path>;

type ParametersOfSegment<Segment extends string> = Segment extends `:${infer Name}`
  ? [Name]
  : ParametersInBraces<Segment>;

/** What follows a parameter in braces may begin with a colon, as in `{name}:cancel`, and is none for that. */
type ParametersInBraces<Segment extends string> = Segment extends `${string}{${infer Name}}${infer Rest}`
  ? [Name, ...ParametersInBraces<Rest>]
  : [];

/** The value of a path's parameter. It is encoded, so that it cannot leave its segment. */
export type PathValue = string | number;

/** A segment `:name`, as Nest writes it, or `{name}` anywhere, as OpenAPI does. */
const PARAMETER = /(?<=^|\/):(\w+)(?=\/|$)|\{(\w+)\}/g;

/** The names of a path's parameters, in their order. */
export function parametersOf(path: string): string[] {
  return [...path.matchAll(PARAMETER)].map(([, colon, braces]) => colon ?? braces ?? '');
}

/** What is wrong with a path as a declaration has it. */
export function faultOfPath(path: string): string | undefined {
  if (!path.startsWith('/')) return 'must begin with "/"';
  if (/[?#]/.test(path)) return 'must have neither query nor fragment: give `query` with the call';
  if (/[{}]|\/:/.test(path.replace(PARAMETER, 'x'))) return 'has a parameter that is not :name or {name}';
  const names = parametersOf(path);
  return new Set(names).size < names.length ? 'names a parameter twice' : undefined;
}

/** The path with its values, or what is wrong with them. */
export function fillPath(
  path: string,
  values: Readonly<Record<string, unknown>>,
): { readonly path: string } | { readonly fault: string } {
  const names = parametersOf(path);
  const unknown = Object.keys(values).find((name) => !names.includes(name));
  if (unknown !== undefined) return { fault: `the path ${path} has no parameter ${unknown}` };
  const faulty = names.find((name) => !isPathValue(values[name]));
  if (faulty !== undefined) {
    return {
      fault: `parameter ${faulty} of the path ${path} must be a number or a string, not empty, "." or ".."`,
    };
  }
  const filled = path.replace(PARAMETER, (_, colon?: string, braces?: string) =>
    encodeURIComponent(String(values[colon ?? braces ?? ''])),
  );
  return { path: filled };
}

/** An empty value would name the collection, and dots are taken out of an address before it is sent. */
function isPathValue(value: unknown): boolean {
  return typeof value === 'number'
    ? Number.isFinite(value)
    : typeof value === 'string' && !/^\.{0,2}$/.test(value);
}
