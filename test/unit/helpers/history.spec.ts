import { describe, expect, it } from '@jest/globals';
import fc from 'fast-check';
import { VIOLATION_KINDS } from '../../helpers/history-checks.js';
import { append, error, PLANTED } from '../../helpers/history-faults.js';
import { FATES, simulate, type PlannedAttempt } from '../../helpers/history-simulation.js';
import {
  checkHistory,
  type Answer,
  type History,
  type HistoryEvent,
  type IdentityRows,
  type Mode,
} from '../../helpers/history.js';

const MODES: readonly Mode[] = ['transaction', 'lease'];

const success = (nonce: string, replayed = false): Answer => ({
  status: 201,
  replayed,
  body: JSON.stringify({ nonce }),
  nonce,
  retryAfter: false,
});
const ORIGINAL = success('n');
const REPLAY = success('n', true);
const UNAVAILABLE = error(503, 'IDEMPOTENCY_STORE_UNAVAILABLE');
const IN_DOUBT = error(503, 'IDEMPOTENCY_OUTCOME_UNKNOWN');
const ROLLED_BACK = error(503, 'IDEMPOTENCY_MAX_DURATION_EXCEEDED');
const IN_PROGRESS = error(409, 'IDEMPOTENCY_IN_PROGRESS');
const REUSED = error(422, 'IDEMPOTENCY_KEY_REUSED');

/** An attempt: from, to, its answer, and what it asks for. */
type Line = readonly [from: number, to: number, answer: Answer | 'unknown', request?: string];

const COMMITTED: IdentityRows = {
  key: 'k',
  effects: ['n'],
  record: { status: 'completed', responseStatus: 201, body: ORIGINAL.body },
};

/** The last line is the one that settles the identity. */
function historyOf(
  lines: readonly Line[],
  rows: IdentityRows = COMMITTED,
  mode: Mode = 'transaction',
): History {
  const events = lines.flatMap(([from, to, answer, request = 'same'], index): HistoryEvent[] => {
    const operation = index + 1;
    const settling = operation === lines.length;
    const invocation = {
      operation,
      time: from,
      process: `client-${index}`,
      key: rows.key,
      request,
      settling,
    };
    return [
      { type: 'invocation', ...invocation },
      { type: 'completion', operation, time: to, answer },
    ];
  });
  return { mode, events, rows: [rows] };
}

const kindsOf = (history: History): string[] => [...new Set(checkHistory(history).map(({ kind }) => kind))];

describe('the checker of histories', () => {
  describe('finds nothing wrong with', () => {
    it.each<[string, readonly Line[]]>([
      [
        'one success and its replay',
        [
          [0, 1, ORIGINAL],
          [2, 3, REPLAY],
        ],
      ],
      [
        'a replay that overtakes the answer it repeats',
        [
          [0, 9, ORIGINAL],
          [1, 2, REPLAY],
        ],
      ],
      [
        'a replay that was sent before the execution',
        [
          [0, 9, REPLAY],
          [1, 2, ORIGINAL],
        ],
      ],
      [
        'any number of refusals before the success, and between it and a replay',
        [
          [0, 1, UNAVAILABLE],
          [2, 3, ROLLED_BACK],
          [4, 5, UNAVAILABLE],
          [6, 7, ORIGINAL],
          [8, 9, UNAVAILABLE],
          [10, 11, REPLAY],
        ],
      ],
      [
        'a lost answer of an execution that committed',
        [
          [0, 1, 'unknown'],
          [2, 3, REPLAY],
        ],
      ],
      [
        'a lost answer of a request that never arrived',
        [
          [0, 1, 'unknown'],
          [2, 3, ORIGINAL],
        ],
      ],
      [
        'a lost answer whose execution committed long after another was rolled back',
        [
          [0, 1, 'unknown'],
          [2, 3, ROLLED_BACK],
          [4, 5, ROLLED_BACK],
          [6, 7, REPLAY],
        ],
      ],
      [
        'an attempt that was never completed, and had the effect',
        [
          [0, Infinity, 'unknown'],
          [2, 3, REPLAY],
        ],
      ],
      [
        'a COMMIT in doubt that committed',
        [
          [0, 1, IN_DOUBT],
          [2, 3, REPLAY],
        ],
      ],
      [
        'a COMMIT in doubt that did not',
        [
          [0, 1, IN_DOUBT],
          [2, 3, ORIGINAL],
        ],
      ],
      [
        'many in doubt, of which one committed',
        [
          [0, 5, IN_DOUBT],
          [1, 4, 'unknown'],
          [2, 7, IN_DOUBT],
          [8, 9, REPLAY],
        ],
      ],
      [
        'in progress while another one runs',
        [
          [0, 9, ORIGINAL],
          [1, 2, IN_PROGRESS],
          [10, 11, REPLAY],
        ],
      ],
      [
        'in progress behind one that was cut off',
        [
          [0, 1, UNAVAILABLE],
          [2, 3, IN_PROGRESS],
          [4, 5, ORIGINAL],
        ],
      ],
      [
        'another request that is refused',
        [
          [0, 1, ORIGINAL],
          [2, 3, REUSED, 'other'],
          [4, 5, REPLAY],
        ],
      ],
      [
        'another request that is refused before the answer is known',
        [
          [0, 9, ORIGINAL],
          [1, 2, REUSED, 'other'],
          [10, 11, REPLAY],
        ],
      ],
      [
        'another request that was faster',
        [
          [0, 9, REUSED, 'other'],
          [1, 8, 'unknown', 'third'],
          [10, 11, REPLAY, 'third'],
        ],
      ],
      [
        'two that come together, each in doubt',
        [
          [0, 3, IN_DOUBT, 'other'],
          [0, 3, IN_DOUBT],
          [4, 5, REUSED, 'other'],
          [6, 7, REPLAY],
        ],
      ],
    ])('%s', (_, lines) => {
      expect(checkHistory(historyOf(lines))).toEqual([]);
    });

    it('rows of attempts that were overtaken in lease mode, where the charge was made once', () => {
      const rows = { ...COMMITTED, effects: ['overtaken', 'n'], charges: 1 };
      const lines: Line[] = [
        [0, 5, error(503, 'IDEMPOTENCY_LEASE_LOST')],
        [1, 4, ORIGINAL],
        [6, 7, REPLAY],
      ];
      expect(checkHistory(historyOf(lines, rows, 'lease'))).toEqual([]);
    });

    it('an error of a handler in lease mode that had the effect nevertheless', () => {
      const lines: Line[] = [
        [0, 1, error(500, undefined)],
        [2, 3, REPLAY],
      ];
      const rows = { ...COMMITTED, charges: 1 };
      expect(checkHistory(historyOf(lines, rows, 'lease'))).toEqual([]);
    });

    it('a refusal in lease mode by a claim that was given back', () => {
      const lines: Line[] = [
        [0, 1, UNAVAILABLE, 'other'],
        [2, 3, REUSED],
        [4, 5, ORIGINAL],
      ];
      const rows = { ...COMMITTED, charges: 1 };
      expect(checkHistory(historyOf(lines, rows, 'lease'))).toEqual([]);
    });

    it('whatever a correct server does', () => {
      fc.assert(
        fc.property(plans, fc.constantFrom(...MODES), (plan, mode) => {
          expect(checkHistory(simulate('k', mode, plan))).toEqual([]);
        }),
        { numRuns: 500 },
      );
    });
  });

  describe('finds', () => {
    it.each(VIOLATION_KINDS)('%s, planted in a plain history', (kind) => {
      const plain = historyOf([
        [0, 1, ORIGINAL],
        [2, 3, REPLAY],
      ]);
      expect(checkHistory(plain)).toEqual([]);
      expect(kindsOf(PLANTED[kind](plain))).toContain(kind);
    });

    it.each(VIOLATION_KINDS)('%s, planted in whatever a correct server does', (kind) => {
      fc.assert(
        fc.property(plans, fc.constantFrom(...MODES), (plan, mode) => {
          expect(kindsOf(PLANTED[kind](simulate('k', mode, plan)))).toContain(kind);
        }),
      );
    });

    it.each<[string, string, readonly Line[]]>([
      [
        'an effect of a request whose client was told that nothing happened',
        'replay-without-original',
        [
          [0, 1, UNAVAILABLE],
          [2, 3, ROLLED_BACK],
          [4, 5, REPLAY],
        ],
      ],
      [
        'a replay that was answered before the only execution was sent',
        'replay-without-original',
        [
          [0, 1, REPLAY],
          [2, 3, ORIGINAL],
        ],
      ],
      [
        'a key that was lost for a while',
        'runs-after-success',
        [
          [0, 1, ORIGINAL],
          [2, 3, IN_DOUBT],
          [4, 5, REPLAY],
        ],
      ],
      [
        'an error of a handler that ran after a success',
        'runs-after-success',
        [
          [0, 1, ORIGINAL],
          [2, 3, error(500, undefined)],
          [4, 5, REPLAY],
        ],
      ],
      [
        'a request that waits for one that has had its result',
        'in-progress-alone',
        [
          [0, 1, ORIGINAL],
          [2, 3, IN_PROGRESS],
          [4, 5, REPLAY],
        ],
      ],
      [
        'a refusal before the other request was sent',
        'refused-wrongly',
        [
          [0, 1, REUSED, 'other'],
          [2, 3, ORIGINAL],
        ],
      ],
      [
        'a refusal for the sake of a request that was itself rolled back',
        'refused-wrongly',
        [
          [0, 1, ROLLED_BACK, 'other'],
          [2, 3, REUSED],
          [4, 5, 'unknown'],
          [6, 7, REPLAY],
        ],
      ],
      [
        'two executions, of which one client heard of each',
        'stale-read',
        [
          [0, 1, ORIGINAL],
          [2, 3, success('other')],
          [4, 5, REPLAY],
        ],
      ],
    ])('%s', (_, kind, lines) => {
      expect(kindsOf(historyOf(lines))).toContain(kind);
    });

    // Each of these looks harmless to every check that looks at pairs of attempts.
    it.each<[string, readonly Line[]]>([
      [
        'a refusal whose cause vanished again',
        [
          [0, 1, 'unknown', 'other'],
          [2, 3, REUSED, 'third'],
          [4, 5, ORIGINAL],
          [6, 7, REPLAY],
        ],
      ],
      [
        'a run after a refusal',
        [
          [0, 1, 'unknown'],
          [2, 3, REUSED, 'other'],
          [4, 5, ROLLED_BACK],
          [6, 7, REPLAY],
        ],
      ],
      [
        'a refusal of the request that has the key, by one that came too late',
        [
          [0, 9, ORIGINAL],
          [0, 9, 'unknown', 'other'],
          [1, 2, REUSED, 'other'],
          [3, 4, REUSED],
          [10, 11, REPLAY],
        ],
      ],
    ])('%s, which only the search does', (_, lines) => {
      expect(kindsOf(historyOf(lines))).toEqual(['not-linearizable']);
    });

    it('a record of a request that nobody can have carried out', () => {
      const lines: Line[] = [
        [0, 1, ROLLED_BACK],
        [2, 3, UNAVAILABLE],
      ];
      expect(kindsOf(historyOf(lines))).toEqual(['wedged', 'not-linearizable']);
    });

    it('effects under a key that nobody sent', () => {
      expect(kindsOf({ mode: 'transaction', events: [], rows: [COMMITTED] })).toContain('not-linearizable');
    });
  });

  it('judges each identity by itself, and says which it was', () => {
    const good = historyOf([[0, 1, ORIGINAL]]);
    const bad = historyOf([[0, 1, ORIGINAL]], { ...COMMITTED, key: 'bad', effects: ['n', 'm'] });
    const renumbered = bad.events.map((event) => ({ ...event, operation: event.operation + 100 }));
    const both: History = {
      mode: 'transaction',
      events: [...renumbered, ...good.events],
      rows: [...bad.rows, ...good.rows],
    };
    expect(checkHistory(both)).toEqual([{ kind: 'effect-twice', key: 'bad', detail: '2 effects' }]);
  });

  it('copes with many attempts at once whose answers are all lost', () => {
    const lost = Array.from({ length: 40 }, (_, index): Line => [index, Infinity, 'unknown']);
    const refused = Array.from({ length: 10 }, (_, index): Line => [index, 90 + index, ROLLED_BACK]);
    expect(checkHistory(historyOf([...lost, ...refused, [200, 201, REPLAY]]))).toEqual([]);
    expect(
      kindsOf(
        historyOf([...lost, ...refused, [200, 201, ORIGINAL], [202, 203, ROLLED_BACK], [204, 205, REPLAY]]),
      ),
    ).toEqual(['runs-after-success', 'not-linearizable']);
  });

  it('refuses events that are no history', () => {
    const [invocation, completion] = historyOf([[0, 1, ORIGINAL]]).events as [HistoryEvent, HistoryEvent];
    const check = (events: readonly HistoryEvent[]) => (): unknown =>
      checkHistory({ mode: 'transaction', events, rows: [] });
    expect(check([completion])).toThrow('Attempt 1 was completed, but never invoked');
    expect(check([invocation, invocation])).toThrow('Attempt 1 was invoked twice');
    expect(check([invocation, completion, completion])).toThrow('Attempt 1 was completed twice');
    expect(check([invocation, { ...completion, time: -1 }])).toThrow('completed before it was invoked');
  });

  it('does not mind one more lost answer anywhere at the end', () => {
    fc.assert(
      fc.property(plans, fc.constantFrom(...MODES), (plan, mode) => {
        expect(checkHistory(append(simulate('k', mode, plan), 'same', 'unknown'))).toEqual([]);
      }),
    );
  });
});

const plans: fc.Arbitrary<PlannedAttempt[]> = fc.array(
  fc.record({
    pause: fc.nat(6),
    there: fc.nat(5),
    back: fc.nat(5),
    other: fc.boolean(),
    fate: fc.constantFrom(...FATES),
    late: fc.nat(20),
  }),
  { maxLength: 10 },
);
