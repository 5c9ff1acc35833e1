/** The HTTP adapters that the application runs on. */
const ADAPTERS = ['express', 'fastify'] as const;

/** Name of an HTTP adapter. */
export type AdapterName = (typeof ADAPTERS)[number];

/** What the environment can set. */
export interface Settings {
  /** 0 takes any free port. */
  readonly port: number;
  readonly adapter: AdapterName;
}

/** A mistake of whoever starts the application: the message says it all. */
export class StartError extends Error {
  override readonly name = 'StartError';
}

const DEFAULT_PORT = 3000;
const LARGEST_PORT = 65_535;

/**
 * Reads `PORT` (default 3000) and `ADAPTER` (default `express`); empty values count as not set.
 *
 * @throws StartError for a value that makes no sense.
 */
export function readSettings({ PORT, ADAPTER }: NodeJS.ProcessEnv): Settings {
  return { port: readPort(PORT), adapter: readAdapter(ADAPTER) };
}

function readPort(value: string | undefined): number {
  if (value === undefined || value === '') return DEFAULT_PORT;
  const port = /^\d{1,5}$/.test(value) ? Number(value) : Infinity;
  if (port > LARGEST_PORT) {
    throw new StartError(`PORT=${value} is not a port: set a number from 0 to ${LARGEST_PORT}.`);
  }
  return port;
}

function readAdapter(value: string | undefined): AdapterName {
  if (value === undefined || value === '') return 'express';
  const adapter = ADAPTERS.find((name) => name === value);
  if (adapter === undefined) {
    throw new StartError(`ADAPTER=${value} is not known: set one of ${ADAPTERS.join(', ')}.`);
  }
  return adapter;
}
