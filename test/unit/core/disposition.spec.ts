import { describe, expect, it } from '@jest/globals';
import { disposition, type Disposition } from '../../../lib/core/disposition.js';

const all = { isStored: (): boolean => true, storesErrors: true };
const none = { isStored: (): boolean => false, storesErrors: true };
const noErrors = { isStored: (): boolean => true, storesErrors: false };
const unsettled: Disposition = { kind: 'give-up', why: 'unsettled' };

describe('disposition', () => {
  it('records what the handler produced below 500', () => {
    expect(disposition('returned', 201, all)).toEqual({ kind: 'complete', handler: 'returned' });
    expect(disposition('threw', 499, all)).toEqual({ kind: 'complete', handler: 'threw' });
  });

  it('records what was returned where errors are not stored', () => {
    expect(disposition('returned', 200, noErrors)).toEqual({ kind: 'complete', handler: 'returned' });
  });

  it('releases where nothing happened', () => {
    expect(disposition('not-begun', 400, all)).toEqual({ kind: 'release' });
    expect(disposition('released', 409, all)).toEqual({ kind: 'release' });
  });

  it.each([
    ['of a handler that broke off', disposition('broken', 200, all)],
    ['of 500 that was returned', disposition('returned', 500, all)],
    ['of 503 that was thrown', disposition('threw', 503, all)],
    ['that the policy leaves out', disposition('returned', 201, none)],
    ['below 200, which is not final', disposition('returned', 199, all)],
    ['that was thrown where errors are not stored', disposition('threw', 200, noErrors)],
  ])('leaves the outcome open for a response %s', (_what, decided) => {
    expect(decided).toEqual(unsettled);
  });

  it('knows that a response which cannot be kept belongs to an effect', () => {
    expect(disposition('unkeepable', 201, all)).toEqual({ kind: 'give-up', why: 'unkeepable' });
  });
});
