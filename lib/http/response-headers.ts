import type { OutgoingHttpHeaders } from 'node:http';
import type { ResponseHeaderOptions } from '../idempotency.options.js';

/** The names in use; false where a header is off. */
export type ResponseHeaderNames = Readonly<Record<keyof ResponseHeaderOptions, string | false>>;

const DEFAULT_NAMES: ResponseHeaderNames = {
  key: 'Idempotency-Key',
  replayed: 'Idempotency-Replayed',
  createdAt: 'Idempotency-Created-At',
};
const OFF: ResponseHeaderNames = { key: false, replayed: false, createdAt: false };

/** The headers that tell a client of idempotency, under the names that a route gives them. */
export class ResponseHeaders {
  /** In lower case, as everything here. */
  readonly names: readonly string[];
  readonly #lower: ResponseHeaderNames;
  /** As they are written. */
  readonly byMeaning: ResponseHeaderNames;

  /** Options of module, controller and method, in that order. */
  constructor(layers: readonly (false | ResponseHeaderOptions | undefined)[]) {
    this.byMeaning = layers.reduce<ResponseHeaderNames>(narrowed, DEFAULT_NAMES);
    const { key, replayed, createdAt } = this.byMeaning;
    this.#lower = { key: lower(key), replayed: lower(replayed), createdAt: lower(createdAt) };
    this.names = Object.values(this.#lower).filter((name) => name !== false);
  }

  /** For every answer to a request whose key is acceptable; `key` is undefined where a header cannot carry it. */
  ofKey(key: string | undefined): OutgoingHttpHeaders {
    return key === undefined ? {} : this.#header('key', key);
  }

  /** For an answer that is recorded. */
  ofOriginal(createdAt: Date): OutgoingHttpHeaders {
    return this.#header('createdAt', seconds(createdAt));
  }

  /** For a replay. */
  ofReplay(createdAt: Date): OutgoingHttpHeaders {
    return { ...this.#header('replayed', 'true'), ...this.ofOriginal(createdAt) };
  }

  #header(which: keyof ResponseHeaderOptions, value: string): OutgoingHttpHeaders {
    const name = this.#lower[which];
    return name === false ? {} : { [name]: value };
  }
}

function lower(name: string | false): string | false {
  return name && name.toLowerCase();
}

/** A name that two headers would share. */
export function sharedName(names: readonly string[]): string | undefined {
  const lower = names.map((name) => name.toLowerCase());
  return lower.find((name, index) => lower.indexOf(name) !== index);
}

function narrowed(
  wider: ResponseHeaderNames,
  layer: false | ResponseHeaderOptions | undefined,
): ResponseHeaderNames {
  if (layer === false) return OFF;
  const { key = wider.key, replayed = wider.replayed, createdAt = wider.createdAt } = layer ?? {};
  return { key, replayed, createdAt };
}

/** As in `2026-01-21T10:30:00Z`. */
function seconds(time: Date): string {
  return `${time.toISOString().slice(0, -'.000Z'.length)}Z`;
}
