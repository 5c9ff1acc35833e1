import { parseArgs } from 'node:util';

type Knob = number | string | boolean | readonly string[] | readonly number[];

/** What a knob can be turned to, given its default. */
type Setting<K> = K extends readonly number[]
  ? readonly number[]
  : K extends readonly string[]
    ? readonly string[]
    : K extends number
      ? number
      : K extends boolean
        ? boolean
        : string;

/** Every knob of a benchmark, as it is set. */
export type Settings<K> = { readonly [Name in keyof K]: Setting<K[Name]> };

/**
 * Reads `--name value` and `--name=value` for the knobs that there are; lists are written with commas.
 *
 * @throws Error for a knob that there is not, and for a number that is none.
 */
export function readFlags<K extends Readonly<Record<string, Knob>>>(
  given: readonly string[],
  defaults: K,
): Settings<K> {
  const options = Object.fromEntries(
    Object.entries(defaults).map(([name, value]) => [
      name,
      { type: typeof value === 'boolean' ? ('boolean' as const) : ('string' as const) },
    ]),
  );
  let values: Record<string, string | boolean | undefined>;
  try {
    ({ values } = parseArgs({ args: [...given], options, strict: true, allowPositionals: false }));
  } catch (error) {
    const names = Object.entries(defaults).map(
      ([name, value]) => `  --${name} (default ${String(value) || 'none'})`,
    );
    throw new Error(`${(error as Error).message}\nThe knobs are:\n${names.join('\n')}`, { cause: error });
  }
  return Object.fromEntries(
    Object.entries(defaults).map(([name, fallback]) => {
      const value = values[name];
      return [name, typeof value === 'string' ? parsed(name, value, fallback) : (value ?? fallback)];
    }),
  ) as Settings<K>;
}

function parsed(name: string, text: string, fallback: Knob): Knob {
  if (typeof fallback === 'string') return text;
  if (typeof fallback === 'number') return numberOf(name, text);
  const items = text.split(',').filter(Boolean);
  const areNumbers = typeof (fallback as readonly unknown[])[0] === 'number';
  return areNumbers ? items.map((item) => numberOf(name, item)) : items;
}

function numberOf(name: string, text: string): number {
  const number = Number(text);
  if (text === '' || !Number.isFinite(number) || number < 0)
    throw new Error(`--${name} takes numbers, not ${text}`);
  return number;
}
