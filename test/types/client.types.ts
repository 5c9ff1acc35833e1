// What the types of the client promise: nothing here runs, `npm run typecheck` is the test.
import {
  bodyFingerprintKey,
  createClient,
  derivedKey,
  endpoint,
  randomKey,
  resource,
  unchecked,
  type AnswerError,
  type CallError,
  type CallErrorCode,
  type CallOptions,
  type CallResult,
  type DeclarationError,
  type Effect,
  type ErrorAnswer,
  type KeyInput,
  type KeyStrategy,
  type OperationOptions,
  type PathParameters,
  type PathValue,
  type QueryValues,
  type SchemaError,
  type SchemaIssue,
} from 'nestjs-pg-idempotency/client';
import { type } from 'arktype';
import * as v from 'valibot';
import { z } from 'zod';

/** Whether two types are the same: neither `any` nor a type that merely fits passes for another. */
type Same<A, B> =
  (<T>(value: T) => T extends A ? 1 : 2) extends <T>(value: T) => T extends B ? 1 : 2 ? true : false;

/** Members of intersections as one object, so that these can be compared. */
type Flat<T> = { [Name in keyof T]: T[Name] };

type Holds<Condition extends true> = Condition;

const base = { baseUrl: 'https://api.example.com' } as const;

// The comparison itself.
export type Comparison = [
  Holds<Same<string, string>>,
  // @ts-expect-error another type
  Holds<Same<string, number>>,
  // @ts-expect-error any is no other type
  Holds<Same<string, ReturnType<typeof JSON.parse>>>,
  // @ts-expect-error readonly counts
  Holds<Same<{ a: 1 }, { readonly a: 1 }>>,
];

// Parameters of a path, in both syntaxes.
export type Parameters_ = [
  Holds<Same<PathParameters<'/'>, []>>,
  Holds<Same<PathParameters<'/charges'>, []>>,
  Holds<Same<PathParameters<'/tickets/:ticketId/messages'>, ['ticketId']>>,
  Holds<Same<PathParameters<'/tickets/{ticketId}/messages/{id}'>, ['ticketId', 'id']>>,
  Holds<Same<PathParameters<'/:a/{b}/:c'>, ['a', 'b', 'c']>>,
  Holds<Same<PathParameters<'/files/{name}.{extension}'>, ['name', 'extension']>>,
  Holds<Same<PathParameters<'/v1/{name}:cancel'>, ['name']>>,
  Holds<Same<PathParameters<'/v1/foo:cancel'>, []>>,
  Holds<Same<PathParameters<string>, string[]>>,
  Holds<Same<PathValue, string | number>>,
];

// What a call is given and what it gives.
const charge = endpoint({
  ...base,
  method: 'POST',
  path: '/shops/:shop/charges/{id}',
  input: z.object({ amount: z.number(), at: z.string().transform((text) => new Date(text)) }),
  output: z.object({ at: z.string().transform((text) => new Date(text)) }),
  idempotency: {},
});
type ChargeInput = Parameters<typeof charge>[0];
export type Charge = [
  Holds<
    Same<
      Flat<ChargeInput>,
      {
        readonly query?: QueryValues;
        readonly headers?: Readonly<Record<string, string>>;
        readonly params: { readonly shop: PathValue; readonly id: PathValue };
        readonly body: { amount: number; at: string };
      }
    >
  >,
  Holds<Same<Parameters<typeof charge>[1], CallOptions | undefined>>,
  Holds<Same<Awaited<ReturnType<typeof charge>>, CallResult<{ at: Date }>>>,
];

const params = { shop: 'a', id: 1 };
const body = { amount: 1, at: '' };
void charge({ params, body });
void charge({ params, body }, { idempotencyKey: 'a', signal: new AbortController().signal });
// @ts-expect-error both are required
void charge();
// @ts-expect-error the body is required
void charge({ params });
// @ts-expect-error a parameter is missing
void charge({ params: { shop: 'a' }, body });
// @ts-expect-error a parameter that the path does not have
void charge({ params: { shop: 'a', id: 1, other: 2 }, body });
// @ts-expect-error what the schema takes is text
void charge({ params, body: { amount: 1, at: new Date() } });
// @ts-expect-error a key is an option of the call
void charge({ params, body, idempotencyKey: 'a' });
// @ts-expect-error there is no such option
void charge({ params, body }, { key: 'a' });

// Without schemas and parameters nothing is required, and nothing is known of the data.
const free = endpoint({ ...base, method: 'POST', path: '/charges', idempotency: {} });
void free();
void free({ body: 1 });
void free({ body: new FormData() }, { idempotencyKey: 'a' });
// @ts-expect-error the path has no parameters
void free({ params: { id: 1 } });
export type Free = [Holds<Same<Awaited<ReturnType<typeof free>>, CallResult<unknown>>>];

// A path that is not known when the code is compiled.
declare const wide: string;
const anywhere = endpoint({ ...base, method: 'POST', path: wide, idempotency: {} });
void anywhere({ params: { whatever: 1 } });
// @ts-expect-error a value is text or a number
void anywhere({ params: { whatever: {} } });

// What reads has neither body nor key.
const list = endpoint({ ...base, method: 'GET', path: '/charges', output: unchecked<{ id: string }[]>() });
void list();
void list({ query: { ref: 'a', page: 1, all: true, tags: ['a', 'b'], none: undefined } });
// @ts-expect-error GET has no body
void list({ body: {} });
// @ts-expect-error no objects in a query
void list({ query: { ref: {} } });
export type List = [Holds<Same<Awaited<ReturnType<typeof list>>, CallResult<{ id: string }[]>>>];
// @ts-expect-error GET needs no key
endpoint({ ...base, method: 'GET', path: '/charges', idempotency: {} });
// @ts-expect-error HEAD needs no key
endpoint({ ...base, method: 'HEAD', path: '/charges', idempotency: { key: randomKey() } });
// @ts-expect-error methods are in capitals
endpoint({ ...base, method: 'post', path: '/charges' });
// @ts-expect-error there is no such field
endpoint({ ...base, method: 'POST', path: '/charges', retries: 3 });

// Key strategies know what they are given.
endpoint({
  ...base,
  method: 'POST',
  path: '/shops/:shop/charges',
  input: z.object({ at: z.string().transform((text) => new Date(text)) }),
  idempotency: {
    key: ({ params: given, body: value, query, request }) => {
      const checks: [
        Holds<Same<typeof given, { readonly shop: PathValue }>>,
        // As it was given, not as the schema makes it.
        Holds<Same<typeof value, { at: string }>>,
        Holds<Same<typeof query, QueryValues>>,
        Holds<Same<typeof request.url, string>>,
        Holds<Same<typeof request.bytes, Uint8Array | undefined>>,
      ] = [true, true, true, true, true];
      return [given.shop, value.at, typeof query, request.url, checks.length].join();
    },
  },
});
endpoint({
  ...base,
  method: 'POST',
  path: '/shops/:shop/charges',
  input: v.object({ ref: v.string() }),
  idempotency: { key: derivedKey(({ params: given, body: value }) => ['charge', given.shop, value.ref]) },
});
endpoint({
  ...base,
  method: 'POST',
  path: '/shops/:shop/charges',
  idempotency: {
    key: derivedKey(({ params: given, body: value }) => {
      const checks: [Holds<Same<typeof value, unknown>>] = [true];
      return ['charge', given['shop'], String(value), checks.length];
    }),
  },
});
endpoint({ ...base, method: 'PUT', path: '/charges/:id', idempotency: { key: randomKey() } });
endpoint({ ...base, method: 'PATCH', path: '/charges/:id', idempotency: { key: bodyFingerprintKey() } });
endpoint({ ...base, method: 'DELETE', path: '/charges/:id', idempotency: { key: async () => 'a' } });
endpoint({
  ...base,
  method: 'POST',
  path: '/charges',
  input: unchecked<{ ref: string }>(),
  // @ts-expect-error the body has no such property
  idempotency: { key: ({ body: value }) => value.other },
});
endpoint({
  ...base,
  method: 'POST',
  path: '/charges',
  // @ts-expect-error a key is text
  idempotency: { key: () => 7 },
});
export type Strategies = [
  Holds<Same<ReturnType<typeof randomKey>, KeyStrategy<unknown>>>,
  Holds<Same<ReturnType<typeof bodyFingerprintKey>, KeyStrategy>>,
];

// Hooks may return whatever they like: a repository's save returns what it has saved.
endpoint({
  ...base,
  method: 'POST',
  path: '/charges',
  idempotency: {},
  saveKey: async ({ key }) => ({ id: key }),
  onAttempt: ({ attempt }) => attempt,
});

// Operations take the values of the path in its order, the body where they have a schema, and options.
const client = createClient(
  { ...base, idempotency: {} },
  {
    tickets: resource('/tickets', {
      create: { method: 'POST', input: type({ title: 'string' }), output: z.object({ id: z.string() }) },
      list: { method: 'GET', output: unchecked<string[]>() },
      update: { method: 'PATCH', path: '/:id', input: v.object({ title: v.string() }) },
      close: { method: 'POST', path: '/{id}:close' },
      messages: resource('/:ticketId/messages', {
        create: { method: 'POST', input: unchecked<{ text: string }>(), output: unchecked<number>() },
        remove: { method: 'DELETE', path: '/:messageId' },
      }),
    }),
  },
);
type Tickets = typeof client.tickets;

// An operation's strategy says itself what it takes; without, it knows the request, and nothing of the body.
resource('/tickets', {
  create: {
    method: 'POST',
    input: unchecked<{ title: string }>(),
    idempotency: {
      key: derivedKey(({ body: value }: KeyInput<unknown, unknown, { title: string }>) => [value.title]),
    },
  },
  update: {
    method: 'PATCH',
    path: '/:id',
    idempotency: { key: ({ params: given }: KeyInput<{ id: PathValue }>) => `ticket_${given.id}` },
  },
  close: { method: 'POST', path: '/:id/close', idempotency: { key: ({ request }) => request.url } },
  remove: { method: 'DELETE', path: '/:id', idempotency: { key: bodyFingerprintKey() } },
});
// @ts-expect-error a key is text
resource('/tickets', { create: { method: 'POST', idempotency: { key: () => 7 } } });
export type Operations = [
  Holds<Same<Parameters<Tickets['create']>, [body: { title: string }, options?: OperationOptions]>>,
  Holds<Same<ReturnType<Tickets['create']>, Promise<CallResult<{ id: string }>>>>,
  Holds<Same<Parameters<Tickets['list']>, [options?: OperationOptions]>>,
  Holds<Same<ReturnType<Tickets['list']>, Promise<CallResult<string[]>>>>,
  Holds<Same<Parameters<Tickets['update']>, [PathValue, { title: string }, OperationOptions?]>>,
  Holds<Same<ReturnType<Tickets['update']>, Promise<CallResult<unknown>>>>,
  Holds<Same<Parameters<Tickets['close']>, [PathValue, OperationOptions?]>>,
  Holds<Same<Parameters<Tickets['messages']['create']>, [PathValue, { text: string }, OperationOptions?]>>,
  Holds<Same<ReturnType<Tickets['messages']['create']>, Promise<CallResult<number>>>>,
  Holds<Same<Parameters<Tickets['messages']['remove']>, [PathValue, PathValue, OperationOptions?]>>,
];
void client.tickets.create({ title: 'a' }, { idempotencyKey: 'b', query: { notify: true } });
// @ts-expect-error no such operation
export type Missing = Tickets['delete'];
// @ts-expect-error the body does not fit
void client.tickets.update(1, { name: 'a' });

// Results and errors.
export type Answers = [
  Holds<
    Same<
      Flat<CallResult<'data'>>,
      {
        readonly data: 'data';
        readonly status: number;
        readonly headers: Headers;
        readonly key: string | undefined;
        readonly replayed: boolean;
        readonly attempts: number;
        readonly createdAt: Date | undefined;
      }
    >
  >,
  Holds<Same<CallError['code'], CallErrorCode>>,
  Holds<Same<CallError['effect'], Effect>>,
  Holds<Same<Effect, 'none' | 'unknown' | 'done'>>,
  Holds<Same<CallError['key'], string | undefined>>,
  Holds<Same<CallError['attempts'], number>>,
  Holds<Same<AnswerError['answer'], ErrorAnswer>>,
  Holds<Same<ErrorAnswer['body'], unknown>>,
  Holds<Same<SchemaError['issues'], readonly SchemaIssue[]>>,
  Holds<Same<DeclarationError['code'], 'CALL_DECLARATION_INVALID'>>,
  Holds<AnswerError extends CallError ? true : false>,
  Holds<SchemaError extends CallError ? true : false>,
];
