import { describe, expect, it } from '@jest/globals';
import { ExecutionSignal } from '../../../lib/postgres/execution-signal.js';

describe('the signal of an execution', () => {
  it('is one, and is aborted with the first reason', () => {
    const execution = new ExecutionSignal();
    const { signal } = execution;
    expect(signal.aborted).toBe(false);
    const reasons: unknown[] = [];
    signal.addEventListener('abort', () => reasons.push(signal.reason));
    const first = new Error('first');
    execution.abort(() => first);
    execution.abort(() => new Error('second'));
    expect([execution.signal, reasons]).toEqual([signal, [first]]);
    expect(execution.signal).toBe(signal);
  });

  it('is aborted already where it was asked for too late', () => {
    const execution = new ExecutionSignal();
    const first = new Error('first');
    execution.abort(() => first);
    execution.abort(() => new Error('second'));
    expect([execution.signal.aborted, execution.signal.reason]).toEqual([true, first]);
  });
});
