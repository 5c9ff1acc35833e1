import fc, { type Arbitrary, type AsyncCommand } from 'fast-check';
import { SETTABLE_HEADERS } from './application.js';
import {
  ChangedRequest,
  Duplicate,
  DuplicatesAtOnce,
  Expire,
  Kill,
  Lapse,
  PARTS,
  Purge,
  Release,
  SameKeyElsewhere,
  Send,
  Settle,
  type Kind,
  type Model,
} from './commands.js';
import { ENDPOINTS, type Endpoint, type Ending, type Identity, type Request, type Script } from './model.js';
import type { Side, World } from './world.js';

/** Most steps of one run. Many find nothing to do, such as a duplicate of nothing. */
const MOST_STEPS = 200;

const CLIENTS = ['ann', 'bob'] as const;
const ALL_ENDPOINTS = Object.keys(ENDPOINTS) as Endpoint[];

const identity: Arbitrary<Identity> = fc.record({
  client: fc.constantFrom(...CLIENTS),
  endpoint: fc.constantFrom(...ALL_ENDPOINTS),
  // Few identities, so that steps meet.
  key: fc.oneof({ weight: 3, arbitrary: fc.constant('k1') }, { weight: 1, arbitrary: fc.constant('k2') }),
});
const side: Arbitrary<Side> = fc.constantFrom(0, 1);
const manner = fc.record({ side, respelled: fc.boolean() });

const number = fc.double({ noNaN: true, noDefaultInfinity: true });
const text = fc.string({ unit: 'grapheme', maxLength: 12 });
/** Members out of order, numbers of all sizes and characters of all planes. */
const json = fc.record(
  {
    z: text,
    b: fc.array(number, { maxLength: 4 }),
    a: fc.record({ '\u00e9': text, 10: number, 9: fc.boolean() }),
  },
  { requiredKeys: [] },
);
/** What JSON allows and nobody who parses it and writes it again gives back. */
const oddText = fc.constantFrom(
  '{"b":1.10,"a":12345678901234567890,"b":-0.0}',
  '[1e2, 0.30000000000000004,\n  1E-7]',
  '"\\u00e9\\ud83d\\ude00 \u00e9"',
);

/** The statuses of each ending. What is put off is not recorded, whatever throws it. */
const STATUSES: Readonly<Record<Ending, readonly number[]>> = {
  returns: [200, 201, 204, 404, 422],
  throws: [400, 402, 409],
  'puts off': [408, 425, 429],
  fails: [500, 503],
  overflows: [200],
  releases: [402, 503],
};

const ending: Arbitrary<Ending> = fc.oneof(
  { weight: 2, arbitrary: fc.constant('returns' as const) },
  { weight: 5, arbitrary: fc.constantFrom(...(Object.keys(STATUSES) as Ending[])) },
);

const script: Arbitrary<Script> = ending.chain((chosen) =>
  fc.record({
    ending: fc.constant(chosen),
    status: fc.constantFrom(...STATUSES[chosen]),
    says: fc.oneof(fc.record({ json }), fc.record({ text: oddText })),
    headers: fc.subarray(SETTABLE_HEADERS),
  }),
);

const request: Arbitrary<Request> = fc.record({
  thing: fc.constantFrom('tea', 'cake'),
  query: fc.constantFrom('', '?size=large'),
  script,
});

type Command = AsyncCommand<Model, World>;

const someWhere = (kind: 'other client' | 'other endpoint'): Arbitrary<Command> =>
  fc
    .tuple(identity, fc.constantFrom(...ALL_ENDPOINTS), manner)
    .map(([here, endpoint, sent]) => {
      const client = here.client === 'ann' ? 'bob' : 'ann';
      const other = kind === 'other client' ? { ...here, client } : { ...here, endpoint };
      return new SameKeyElsewhere(kind, here, other, sent);
    })
    .filter(
      ({ identity: here, elsewhere }) => kind === 'other client' || here.endpoint !== elsewhere.endpoint,
    );

const settlement = fc.record({ status: fc.constantFrom(200, 201, 409), body: json });

/** How often each kind of step is tried, and how one is made. */
const STEPS: Readonly<Record<Kind, readonly [weight: number, step: Arbitrary<Command>]>> = {
  send: [12, fc.tuple(identity, request, manner).map((parts) => new Send(...parts))],
  duplicate: [7, fc.tuple(identity, manner).map((parts) => new Duplicate(...parts))],
  'duplicates at once': [
    4,
    fc
      .tuple(identity, request, fc.array(side, { minLength: 2, maxLength: 5 }))
      .map((parts) => new DuplicatesAtOnce(...parts)),
  ],
  'changed request': [
    4,
    fc.tuple(identity, fc.constantFrom(...PARTS), manner).map((parts) => new ChangedRequest(...parts)),
  ],
  'other client': [3, someWhere('other client')],
  'other endpoint': [3, someWhere('other endpoint')],
  expire: [4, identity.map((expired) => new Expire(expired))],
  purge: [2, fc.constant(new Purge())],
  kill: [
    5,
    fc
      .tuple(
        identity,
        request.filter(({ script: { ending: chosen } }) => chosen !== 'releases'),
        fc.constantFrom('before the write', 'after the write'),
        side,
      )
      .map((parts) => new Kill(...parts)),
  ],
  lapse: [3, fc.constant(new Lapse())],
  release: [2, identity.map((released) => new Release(released))],
  settle: [4, fc.tuple(identity, settlement).map((parts) => new Settle(...parts))],
};

/** Sequences of steps of these kinds. Kills need instances that are processes. */
export function sequences(kinds: readonly Kind[], most = MOST_STEPS): Arbitrary<Iterable<Command>> {
  const weighted = kinds.map((kind) => ({ weight: STEPS[kind][0], arbitrary: STEPS[kind][1] }));
  // Left alone, fast-check makes many of them short.
  return fc.noBias(fc.commands([fc.oneof(...weighted)], { maxCommands: most, size: 'max' }));
}
