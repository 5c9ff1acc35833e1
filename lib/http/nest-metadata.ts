/*
 * The keys under which Nest's own decorators store what they were told. Nest's versions keep them in different
 * modules, but have not changed a key since version 6.
 */
export const PATH = 'path';
export const METHOD = 'method';
export const HOST = 'host';
export const VERSION = '__version__';
export const SSE = '__sse__';
export const RENDER = '__renderTemplate__';
export const HTTP_CODE = '__httpCode__';
export const HEADERS = '__headers__';
export const ROUTE_ARGUMENTS = '__routeArguments__';
export const RESPONSE_PASSTHROUGH = '__responsePassthrough__';
export const INTERCEPTORS = '__interceptors__';
export const FILTERS = '__exceptionFilters__';
export const MODULE_PATH = '__module_path__';
export const GRAPHQL_RESOLVER = 'graphql:resolver_type';
export const MESSAGE_PATTERN = 'microservices:pattern';
export const GATEWAY_MESSAGE = 'websockets:message_mapping';

/** Numbers of `@Res()`, `@Next()` and `@Body()` among the kinds of route arguments. */
export const RESPONSE_ARGUMENT = 1;
export const NEXT_ARGUMENT = 2;
export const BODY_ARGUMENT = 3;
