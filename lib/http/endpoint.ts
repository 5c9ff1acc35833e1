import { VersioningType, type VersioningOptions } from '@nestjs/common';
import type { Exchange } from './exchange.js';

/** A version as a handler or controller declares it. */
export type DeclaredVersion = string | symbol | readonly (string | symbol)[] | undefined;

/** A parameter or wildcard and its name; an escaped colon, `\:` on Express and `::` on Fastify, is text. */
const NAMED_PART = /(?<![\\:])([:*])(?:[$\p{ID_Continue}]+|"[^"]*")/gu;

/** A route template whose parameter names do not count: `/labels/:id` and `/labels/:labelId` are the same. */
export function anonymousTemplate(template: string): string {
  const known = anonymousTemplates.get(template);
  if (known !== undefined) return known;
  const short = template.replace(NAMED_PART, '$1').replace(/\/{2,}/g, '/');
  const anonymous = short.length > 1 ? short.replace(/\/$/, '') : short || '/';
  anonymousTemplates.set(template, anonymous);
  return anonymous;
}

/** Templates are those of registered routes, so that there are no more of these than of those. */
const anonymousTemplates = new Map<string, string>();

/** Method, template and version of a route: `POST /labels/:/reprint`, `POST /orders (version 2)`. */
export function endpointName(method: string, template: string, version: string | undefined): string {
  return `${method} ${anonymousTemplate(template)}${version === undefined ? '' : ` (version ${version})`}`;
}

/** The version a request is served in, where its path does not say it; undefined where it is neutral. */
export function versionOf(
  exchange: Exchange,
  declared: DeclaredVersion,
  versioning: VersioningOptions | undefined,
): string | undefined {
  if (!versioning || versioning.type === VersioningType.URI) return undefined;
  const versions = versionNames(declared);
  if (versions.length === 1) return versions[0];
  return requestedVersions(exchange, versioning).find((version) => versions.includes(version));
}

/** The names of declared versions; undefined stands for none, as VERSION_NEUTRAL does. */
export function versionNames(declared: DeclaredVersion): (string | undefined)[] {
  // VERSION_NEUTRAL is a symbol.
  return [declared].flat().map((version) => (typeof version === 'string' ? version : undefined));
}

/** As Nest's adapters read them, the preferred one first. */
function requestedVersions({ rawRequest }: Exchange, versioning: VersioningOptions): string[] {
  switch (versioning.type) {
    case VersioningType.HEADER:
      return [rawRequest.headers[versioning.header.toLowerCase()] ?? []].flat();
    case VersioningType.MEDIA_TYPE:
      return (rawRequest.headers.accept ?? '')
        .split(/[,;]/)
        .map((parameter) => parameter.trim())
        .filter((parameter) => parameter.startsWith(versioning.key))
        .map((parameter) => parameter.slice(versioning.key.length).replace(/^"(.*)"$/, '$1'));
    case VersioningType.CUSTOM:
      // Fastify routes, and asks for the version, before it has made a request of its own.
      return [versioning.extractor(rawRequest)].flat();
    default:
      return [];
  }
}
