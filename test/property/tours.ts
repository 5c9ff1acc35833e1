import type { AsyncCommand } from 'fast-check';
import {
  ChangedRequest,
  Duplicate,
  DuplicatesAtOnce,
  Expire,
  Kill,
  Lapse,
  Purge,
  Release,
  SameKeyElsewhere,
  Send,
  Settle,
  type Model,
} from './commands.js';
import type { Ending, Identity, Request } from './model.js';
import type { World } from './world.js';

type Tour = readonly AsyncCommand<Model, World>[];

const HERE = { side: 0 } as const;
const THERE = { side: 1, respelled: true } as const;
const SETTLEMENT = { status: 201, body: { settled: true } };

function requestThat(ending: Ending, status: number): Request {
  const headers = ['location', 'link', 'x-label', 'set-cookie'];
  return {
    thing: 'tea',
    query: '?size=large',
    script: { ending, status, says: { json: { n: 1 } }, headers },
  };
}

const ANN: Identity = { client: 'ann', endpoint: 'transaction', key: 'k1' };
const BOB: Identity = { ...ANN, client: 'bob' };
const AT_REFUSE: Identity = { ...ANN, endpoint: 'refuse' };
const AT_RERUN: Identity = { ...ANN, endpoint: 'rerun' };
const ORDER = requestThat('returns', 201);

const THROUGH_TRANSACTIONS: Tour = [
  new Send(ANN, ORDER, HERE),
  new Duplicate(ANN, THERE),
  new ChangedRequest(ANN, 'says', HERE),
  new SameKeyElsewhere('other client', ANN, BOB, THERE),
  new SameKeyElsewhere('other endpoint', ANN, AT_REFUSE, HERE),
  new Expire(ANN),
  new Duplicate(ANN, THERE),
  new Settle(ANN, SETTLEMENT),
  new Expire(ANN),
  new Expire(BOB),
  new Purge(),
  new Duplicate(AT_REFUSE, THERE),
  new Settle(ANN, SETTLEMENT),
  new Release(ANN),
  new Send(ANN, requestThat('overflows', 200), HERE),
  new Send(ANN, requestThat('fails', 500), THERE),
  new Kill(ANN, ORDER, 'after the write', 0),
  new DuplicatesAtOnce(ANN, ORDER, [0, 1, 0, 1]),
  new Release(ANN),
  new Send(ANN, requestThat('throws', 402), HERE),
  new Duplicate(ANN, THERE),
];

const THROUGH_LEASES: Tour = [
  new Kill(AT_REFUSE, ORDER, 'after the write', 1),
  new Duplicate(AT_REFUSE, HERE),
  new Release(AT_REFUSE),
  new Lapse(),
  new Duplicate(AT_REFUSE, THERE),
  new ChangedRequest(AT_REFUSE, 'query', HERE),
  new Settle(AT_REFUSE, SETTLEMENT),
  new Duplicate(AT_REFUSE, HERE),
  new Send(AT_RERUN, requestThat('fails', 503), HERE),
  new DuplicatesAtOnce(AT_RERUN, ORDER, [0, 1, 1]),
  new Release(AT_RERUN),
  new Send(AT_RERUN, requestThat('releases', 503), THERE),
  new Send(AT_RERUN, requestThat('overflows', 200), HERE),
  new Duplicate(AT_RERUN, THERE),
];

/** Written by hand: together they come across everything there is, which no random sequence can be relied on to do. */
export const TOURS = [THROUGH_TRANSACTIONS, THROUGH_LEASES];

/** The shortest sequences that bring something to light. */
export const SHORT = {
  duplicate: [new Send(ANN, ORDER, HERE), new Duplicate(ANN, THERE)],
  atOnce: [new DuplicatesAtOnce(ANN, ORDER, [0, 1])],
  otherClient: [new Send(ANN, ORDER, HERE), new SameKeyElsewhere('other client', ANN, BOB, THERE)],
  changed: [new Send(ANN, ORDER, HERE), new ChangedRequest(ANN, 'says', THERE)],
  failed: [new Send(ANN, requestThat('fails', 500), HERE)],
  unresolved: [new Send(AT_REFUSE, requestThat('fails', 500), HERE), new Duplicate(AT_REFUSE, THERE)],
} as const satisfies Record<string, Tour>;
