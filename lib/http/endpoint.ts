import { VersioningType, type VersioningOptions } from '@nestjs/common';
import type { Exchange } from './exchange.js';

/** A version as a handler or controller declares it. */
export type DeclaredVersion = string | symbol | readonly (string | symbol)[] | undefined;

/** A route template whose parameter names do not count: `/labels/:id` and `/labels/:labelId` are the same. */
export function anonymousTemplate(template: string): string {
  const anonymous = template.replace(/:\w+/g, ':').replace(/\/{2,}/g, '/');
  return anonymous.length > 1 ? anonymous.replace(/\/$/, '') : anonymous || '/';
}

/** Method, template and version of a route: `POST /labels/:/reprint`, `POST /orders (version 2)`. */
export function endpointName(method: string, template: string, version: string | undefined): string {
  return `${method} ${anonymousTemplate(template)}${version === undefined ? '' : ` (version ${version})`}`;
}

/** The version a request is served in, where its path does not say it. */
export function versionOf(
  exchange: Exchange,
  declared: DeclaredVersion,
  versioning: VersioningOptions | undefined,
): string | undefined {
  if (!versioning || versioning.type === VersioningType.URI || declared === undefined) return undefined;
  const versions = versionNames(declared);
  if (versions.length <= 1) return versions[0];
  const requested = requestedVersions(exchange, versioning);
  return versions.find((version) => requested.includes(version)) ?? versions.join(',');
}

/** The names among declared versions; VERSION_NEUTRAL has none. */
export function versionNames(declared: DeclaredVersion): string[] {
  const versions = Array.isArray(declared)
    ? (declared as (string | symbol)[])
    : [declared as string | symbol];
  // VERSION_NEUTRAL is a symbol.
  return versions.filter((version) => typeof version === 'string');
}

function requestedVersions({ rawRequest, request }: Exchange, versioning: VersioningOptions): string[] {
  switch (versioning.type) {
    case VersioningType.HEADER:
      return [rawRequest.headers[versioning.header.toLowerCase()] ?? []].flat().map((value) => value.trim());
    case VersioningType.MEDIA_TYPE: {
      const [, ...parameters] = (rawRequest.headers.accept ?? '').split(';');
      return parameters.map((parameter) => parameter.trim().replace(versioning.key, ''));
    }
    case VersioningType.CUSTOM:
      return [versioning.extractor(request)].flat();
    default:
      return [];
  }
}
