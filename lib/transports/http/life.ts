import type { Look } from './wires.js';

/** How a held response ended: with `end`, because its source or its writer gave up, or because it exceeds what is kept. */
export type HeldEnd = 'ended' | 'broken' | 'too-large';

export type State = 'held' | HeldEnd | 'finished' | 'closed' | 'lost' | 'released' | 'delivered';

/** What a response shows in a state, and what its writers hear next. */
interface Stage {
  readonly shows: Pick<Look, 'ended' | 'finished' | 'closed'>;
  readonly next?: { readonly event: 'finish' | 'close'; readonly state: State };
}

const OPEN = { ended: false, finished: false, closed: false };
const BROKEN: Stage = { shows: OPEN, next: { event: 'close', state: 'lost' } };

/**
 * The life of a response as its writers see it while it is held: that of one that is sent. Let go, with an answer or
 * without, it is node's own again.
 */
export const LIFE: Readonly<Record<State, Stage | undefined>> = {
  held: { shows: OPEN },
  ended: { shows: { ...OPEN, ended: true }, next: { event: 'finish', state: 'finished' } },
  finished: {
    shows: { ended: true, finished: true, closed: false },
    next: { event: 'close', state: 'closed' },
  },
  closed: { shows: { ended: true, finished: true, closed: true } },
  broken: BROKEN,
  'too-large': BROKEN,
  lost: { shows: { ...OPEN, closed: true } },
  released: undefined,
  delivered: undefined,
};
