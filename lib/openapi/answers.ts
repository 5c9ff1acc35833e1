import { RequestMethod } from '@nestjs/common';
import {
  idempotencyError,
  keyError,
  outcomeUnresolved,
  type IdempotencyError,
  type KeyError,
} from '../core/errors.js';
import { HTTP_CODE, METHOD } from '../http/nest-metadata.js';
import type { Problem } from '../http/problem-details.js';
import { answeredAs } from '../http/answered-as.js';
import type { RouteSettings } from '../http/route-settings.js';
import type { DescribedRoute } from './described-route.js';
import { PLUGIN_METADATA, SWAGGER_RESPONSES, type Response, type Schema, type Swagger } from './swagger.js';

type Responses = Readonly<Record<string, Response>>;

/** Describes the errors of this library, as the route's formatter writes them, and the headers of its own answers. */
export function describeAnswers(swagger: Swagger, route: DescribedRoute): void {
  const known = knownResponses(swagger, route);
  // Not by a decorator: what it makes of an answer that is described already depends on swagger's version.
  Reflect.defineMetadata(SWAGGER_RESPONSES, { ...known, ...successes(route, known) }, route.handler);
  for (const [status, problems] of problemsByStatus(route.settings)) {
    // What was described by hand is left as it is.
    if (!(status in known)) route.apply(swagger.ApiResponse({ status, ...problemResponse(problems) }));
  }
}

/** What decorators have said of the route or its controller, or else what the plugin of the Nest CLI would say: it is silent where others have spoken. */
function knownResponses(swagger: Swagger, route: DescribedRoute): Responses {
  const ofController = Reflect.getMetadata(SWAGGER_RESPONSES, route.controller) as Responses | undefined;
  const responsesOf = (): Responses =>
    (Reflect.getMetadata(SWAGGER_RESPONSES, route.handler) ?? {}) as Responses;
  const plugin = (route.controller as { [PLUGIN_METADATA]?: () => Record<string, Response> })[
    PLUGIN_METADATA
  ];
  const described = plugin?.()[route.name];
  if (Object.keys(responsesOf()).length === 0 && described) {
    route.apply(swagger.ApiResponse({ ...described, status: described.status ?? usualStatus(route) }));
  }
  const own = responsesOf();
  const usual = Object.keys(own).length === 0 ? { [usualStatus(route)]: { description: '' } } : {};
  return { ...usual, ...ofController, ...own };
}

/** Every answer that is recorded, with the headers that tell of it. */
function successes(route: DescribedRoute, known: Responses): Responses {
  const headers = responseHeaders(route.settings);
  const described = Object.entries(known).filter(([status]) => /^2/.test(status));
  const usual = String(usualStatus(route));
  const all = new Map(described.length > 0 ? described : [[usual, { description: '' }]]);
  const { replay } = route.settings.answers;
  if (replay !== 'original' && !all.has(String(replay))) {
    const original = all.get(usual) ?? [...all.values()][0];
    all.set(String(replay), { ...original, description: 'The recorded answer, to a repetition.' });
  }
  const withHeaders = [...all].map(([status, response]) => {
    return [status, { ...response, headers: { ...response.headers, ...headers } }] as const;
  });
  return Object.fromEntries(withHeaders);
}

function responseHeaders({
  responseHeaders: { byMeaning },
}: RouteSettings): NonNullable<Response['headers']> {
  const described = {
    key: { description: 'The key of this request.', schema: { type: 'string' } },
    replayed: {
      description: 'Only on a repetition: the answer is that of the original request.',
      schema: { type: 'string', enum: ['true'] },
    },
    createdAt: {
      description: 'When the original was processed.',
      schema: { type: 'string', format: 'date-time' },
    },
  };
  const present = (Object.keys(described) as (keyof typeof described)[]).flatMap((meaning) => {
    const name = byMeaning[meaning];
    return name === false ? [] : [[name, described[meaning]] as const];
  });
  return Object.fromEntries(present);
}

function usualStatus({ handler }: DescribedRoute): number {
  const status = Reflect.getMetadata(HTTP_CODE, handler) as number | undefined;
  return status ?? (Reflect.getMetadata(METHOD, handler) === RequestMethod.POST ? 201 : 200);
}

interface Described {
  readonly error: IdempotencyError;
  readonly problem: Problem;
}

/** What a client may meet, as it will look. */
function problemsByStatus(settings: RouteSettings): Map<number, Described[]> {
  const byStatus = new Map<number, Described[]>();
  for (const error of errorsOf(settings)) {
    const problem = settings.problems.problem(answeredAs(error, settings));
    byStatus.set(problem.status, [...(byStatus.get(problem.status) ?? []), { error, problem }]);
  }
  return byStatus;
}

function errorsOf({ keyRules, mode }: RouteSettings): IdempotencyError[] {
  const key = (code: KeyError['code'], what: string): KeyError =>
    keyError(code, `The key is ${what}.`, keyRules);
  return [
    ...(keyRules.required ? [key('IDEMPOTENCY_KEY_REQUIRED', 'missing')] : []),
    key('IDEMPOTENCY_KEY_TOO_SHORT', `shorter than ${keyRules.minLength} characters`),
    key('IDEMPOTENCY_KEY_TOO_LONG', `longer than ${keyRules.maxLength} characters`),
    key('IDEMPOTENCY_KEY_MALFORMED', 'not of the allowed form'),
    ...COMMON.map((code) => idempotencyError(code)),
    ...(mode.kind === 'lease'
      ? [outcomeUnresolved(1), ...LEASE.map((code) => idempotencyError(code))]
      : TRANSACTION.map((code) => idempotencyError(code))),
  ];
}

type Code = Parameters<typeof idempotencyError>[0];

/** What is answered in either mode, besides what is said of the key. */
const COMMON: readonly Code[] = [
  'IDEMPOTENCY_CLIENT_UNRESOLVED',
  'IDEMPOTENCY_BODY_NOT_FINGERPRINTABLE',
  'IDEMPOTENCY_IN_PROGRESS',
  'IDEMPOTENCY_KEY_REUSED',
  'IDEMPOTENCY_STORE_UNAVAILABLE',
  'IDEMPOTENCY_STORE_REFUSED',
  'IDEMPOTENCY_TRANSACTION_CONFLICT',
  'IDEMPOTENCY_TRANSACTION_NOT_YOURS',
  'IDEMPOTENCY_OUTCOME_UNKNOWN',
  'IDEMPOTENCY_MAX_DURATION_EXCEEDED',
  'IDEMPOTENCY_SHUTTING_DOWN',
  'IDEMPOTENCY_RECORD_UNREADABLE',
  'IDEMPOTENCY_RESPONSE_FAILED',
  'IDEMPOTENCY_RESPONSE_NOT_SENT',
  'IDEMPOTENCY_ENDPOINT_AMBIGUOUS',
  'IDEMPOTENCY_HANDLER_NOT_SEEN',
];
const TRANSACTION: readonly Code[] = [
  'IDEMPOTENCY_TRANSACTION_ABORTED',
  'IDEMPOTENCY_COMMIT_REFUSED',
  'IDEMPOTENCY_RESPONSE_TOO_LARGE',
];
const LEASE: readonly Code[] = ['IDEMPOTENCY_RESPONSE_NOT_KEPT', 'IDEMPOTENCY_LEASE_LOST'];

function problemResponse(described: readonly Described[]): Response {
  const content: Record<string, { schema: Schema; examples: object }> = {};
  for (const { problem } of described) {
    const alike = described.filter((other) => other.problem.contentType === problem.contentType);
    content[problem.contentType] ??= {
      schema: oneSchema(alike.map((other) => schemaOf(other.problem.body))),
      examples: Object.fromEntries(alike.map((other) => [other.error.code, { value: other.problem.body }])),
    };
  }
  const titles = [...new Set(described.map(({ error }) => `${error.title}.`))];
  return { description: titles.join(' '), content };
}

function oneSchema(schemas: readonly Schema[]): Schema {
  const distinct = [...new Map(schemas.map((schema) => [JSON.stringify(schema), schema])).values()];
  return distinct.length === 1 && distinct[0] ? distinct[0] : { oneOf: distinct };
}

/** The shape of a body as it is sent. */
function schemaOf(body: object): Schema {
  return shapeOf(JSON.parse(JSON.stringify(body)));
}

function shapeOf(value: unknown): Schema {
  // Nothing is known of what else could be there.
  if (value === null) return {};
  if (Array.isArray(value)) {
    return { type: 'array', items: value.length > 0 ? oneSchema(value.map(shapeOf)) : {} };
  }
  if (typeof value !== 'object') return { type: Number.isInteger(value) ? 'integer' : typeof value };
  const members = Object.entries(value);
  return {
    type: 'object',
    properties: Object.fromEntries(members.map(([name, member]) => [name, shapeOf(member)])),
    required: members.map(([name]) => name),
  };
}
