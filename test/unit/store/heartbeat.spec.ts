import { afterEach, beforeEach, describe, expect, it, jest } from '@jest/globals';
import { Heartbeat } from '../../../lib/store/lease/heartbeat.js';

const LEASE = 3_000;

describe('heartbeat', () => {
  let lost: jest.Mock;
  let sent: number[];
  let startedAt: number;
  let heartbeat: Heartbeat | undefined;

  beforeEach(() => {
    jest.useFakeTimers();
    lost = jest.fn();
    sent = [];
    startedAt = performance.now();
  });

  afterEach(() => {
    heartbeat?.stop();
    jest.useRealTimers();
  });

  const now = (): number => Math.round(performance.now() - startedAt);

  const start = (extend: () => Promise<boolean>, since = performance.now()): void => {
    const send = (): Promise<boolean> => {
      sent.push(now());
      return extend();
    };
    heartbeat = new Heartbeat(LEASE, since, send, lost);
  };

  it('extends three times in the time of a lease', async () => {
    start(() => Promise.resolve(true));
    await jest.advanceTimersByTimeAsync(LEASE);
    expect(sent).toEqual([900, 1_800, 2_700]);
    expect(lost).not.toHaveBeenCalled();
  });

  it('is lost at once when an extension finds the lease gone, and stops', async () => {
    start(() => Promise.resolve(sent.length < 2));
    await jest.advanceTimersByTimeAsync(1_800);
    expect(lost).toHaveBeenCalledTimes(1);
    await jest.advanceTimersByTimeAsync(LEASE);
    expect(sent).toEqual([900, 1_800]);
  });

  it('survives two extensions that fail', async () => {
    start(() => (sent.length < 3 ? Promise.reject(new Error('no database')) : Promise.resolve(true)));
    await jest.advanceTimersByTimeAsync(2 * LEASE);
    expect(lost).not.toHaveBeenCalled();
  });

  it('is lost when none has succeeded for as long as the lease lasts', async () => {
    start(() => Promise.reject(new Error('no database')));
    await jest.advanceTimersByTimeAsync(LEASE - 1);
    expect(lost).not.toHaveBeenCalled();
    await jest.advanceTimersByTimeAsync(1);
    expect(lost).toHaveBeenCalledTimes(1);
  });

  it('is lost at that time also when the database does not answer', async () => {
    start(() => new Promise(() => undefined));
    await jest.advanceTimersByTimeAsync(LEASE - 1);
    expect(lost).not.toHaveBeenCalled();
    await jest.advanceTimersByTimeAsync(1);
    expect(lost).toHaveBeenCalledTimes(1);
  });

  it('counts from when an extension was sent, not from its answer', async () => {
    let answer: (isHeld: boolean) => void = () => undefined;
    start(() =>
      sent.length === 1 ? new Promise((resolve) => (answer = resolve)) : new Promise(() => undefined),
    );
    await jest.advanceTimersByTimeAsync(2_400);
    answer(true);
    await jest.advanceTimersByTimeAsync(1_499);
    expect(lost).not.toHaveBeenCalled();
    await jest.advanceTimersByTimeAsync(1);
    expect(lost).toHaveBeenCalledTimes(1);
  });

  it('extends at once when the answer to the claim came late', async () => {
    start(() => Promise.resolve(true), performance.now() - LEASE - 500);
    await jest.advanceTimersByTimeAsync(1);
    expect(sent).toHaveLength(1);
    expect(lost).not.toHaveBeenCalled();
  });

  it('gives a process that was held up past its lease a chance to find nobody else there', async () => {
    start(() => Promise.resolve(true));
    const clock = jest.spyOn(performance, 'now').mockReturnValue(startedAt + 10 * LEASE);
    await jest.advanceTimersByTimeAsync(900);
    clock.mockRestore();
    expect(sent).toEqual([10 * LEASE]);
    expect(lost).not.toHaveBeenCalled();
  });

  it('neither extends nor is lost once it is stopped', async () => {
    let answer: (isHeld: boolean) => void = () => undefined;
    start(() => new Promise((resolve) => (answer = resolve)));
    await jest.advanceTimersByTimeAsync(900);
    heartbeat?.stop();
    answer(false);
    await jest.advanceTimersByTimeAsync(2 * LEASE);
    expect(sent).toEqual([900]);
    expect(lost).not.toHaveBeenCalled();
  });
});
