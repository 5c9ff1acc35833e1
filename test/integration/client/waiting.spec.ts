import { afterEach, describe, expect, it, jest } from '@jest/globals';
import { AnswerError, CallError, endpoint, type NextStep } from 'nestjs-pg-idempotency/client';
import { AT_ONCE, failureAs, recordAttempts } from '../../helpers/client-calls.js';
import { serverOfTest, type ScriptedAnswer } from '../../helpers/client-server.js';

const IN_PROGRESS: ScriptedAnswer = { status: 409, body: { code: 'IDEMPOTENCY_IN_PROGRESS' } };

afterEach(() => void jest.restoreAllMocks());

const server = serverOfTest(afterEach);

describe('Retry-After', () => {
  /** What the client is about to do after its first attempt; the call is given up before it does. */
  async function nextAfter(answer: ScriptedAnswer, total: string | number = '1h'): Promise<NextStep> {
    const { url } = await server.start([answer]);
    const controller = new AbortController();
    const { reports, onAttempt } = recordAttempts();
    const charge = endpoint({
      method: 'POST',
      baseUrl: url,
      path: '/charges',
      retry: { backoff: { base: '1s', max: '1m' } },
      idempotency: {},
      timeout: { total },
    });
    const call = charge(
      { body: {} },
      {
        signal: controller.signal,
        onAttempt: (report) => {
          onAttempt(report);
          controller.abort();
        },
      },
    );
    await failureAs(CallError, 'CALL_ABORTED', call);
    expect(reports).toHaveLength(1);
    return reports[0]!.next;
  }

  it.each([0, 0.25, 0.999_999])(
    'in seconds is the least pause, with jitter behind it (%d)',
    async (chance) => {
      jest.spyOn(Math, 'random').mockReturnValue(chance);
      expect(await nextAfter({ status: 503, headers: { 'retry-after': '120' } })).toEqual({
        kind: 'retry',
        pause: 120_000 + Math.round(chance * 1_000),
      });
    },
  );

  it('as a date is the least pause', async () => {
    jest.spyOn(Math, 'random').mockReturnValue(0);
    const before = Date.now();
    const at = new Date(Math.ceil(before / 1_000) * 1_000 + 600_000);
    const next = await nextAfter({ status: 429, headers: { 'retry-after': at.toUTCString() } });
    // The clock has gone on since, by as much as it has now at most.
    expect(next).toEqual({ kind: 'retry', pause: expect.any(Number) });
    const { pause } = next as Extract<NextStep, { kind: 'retry' }>;
    expect(pause).toBeLessThanOrEqual(at.getTime() - before);
    expect(pause).toBeGreaterThanOrEqual(at.getTime() - Date.now());
  });

  it('counts for the first request that still runs, too', async () => {
    jest.spyOn(Math, 'random').mockReturnValue(0.5);
    expect(await nextAfter({ ...IN_PROGRESS, headers: { 'retry-after': '7' } })).toEqual({
      kind: 'wait',
      pause: 7_500,
    });
  });

  it.each(['soon', '-1', '1.5', ''])('that says %j counts for nothing', async (value) => {
    jest.spyOn(Math, 'random').mockReturnValue(0.5);
    expect(await nextAfter({ status: 503, headers: { 'retry-after': value } })).toEqual({
      kind: 'retry',
      pause: 500,
    });
  });
});

describe('pauses', () => {
  it('grow from one failure to the next, each random from 0', async () => {
    const { url } = await server.start(() => ({ status: 503 }));
    const { reports, onAttempt } = recordAttempts();
    jest.spyOn(Math, 'random').mockReturnValue(0.5);
    const charge = endpoint({
      method: 'POST',
      baseUrl: url,
      path: '/charges',
      retry: { attempts: 6, backoff: { base: 2, max: 12 } },
      idempotency: {},
      onAttempt,
    });
    await failureAs(AnswerError, 'CALL_REFUSED', charge({ body: {} }));
    const pauses = reports.map(({ next }) => ('pause' in next ? next.pause : next.kind));
    expect(pauses).toEqual([1, 2, 4, 6, 6, 'fail']);
  });
});

describe('409 in progress', () => {
  const replayed: ScriptedAnswer = {
    status: 201,
    body: { id: 1 },
    headers: { 'idempotency-replayed': 'true', 'idempotency-created-at': '2026-01-02T03:04:05.000Z' },
  };

  it('is waited out, and counts neither as a failure nor against the attempts', async () => {
    const { url, requests } = await server.start([...Array<ScriptedAnswer>(8).fill(IN_PROGRESS), replayed]);
    const { reports, onAttempt } = recordAttempts();
    const charge = endpoint({
      method: 'POST',
      baseUrl: url,
      path: '/charges',
      retry: { attempts: 2, backoff: AT_ONCE },
      idempotency: {},
      onAttempt,
    });
    const result = await charge({ body: {} });
    expect(result).toMatchObject({ data: { id: 1 }, replayed: true, attempts: 9 });
    expect(result.createdAt).toEqual(new Date('2026-01-02T03:04:05.000Z'));
    expect(reports.map(({ next }) => next.kind)).toEqual([...Array<string>(8).fill('wait'), 'return']);
    for (const { headers } of requests) expect(headers['idempotency-key']).toBe(result.key);
  });

  it('leaves the failures the attempts that they have', async () => {
    const script = [
      { status: 503 },
      IN_PROGRESS,
      IN_PROGRESS,
      { cut: 'before' },
      IN_PROGRESS,
      replayed,
    ] as const;
    const { url } = await server.start(script);
    const { reports, onAttempt } = recordAttempts();
    const charge = endpoint({
      method: 'POST',
      baseUrl: url,
      path: '/charges',
      retry: { attempts: 3, backoff: AT_ONCE },
      idempotency: {},
      onAttempt,
    });
    expect(await charge({ body: {} })).toMatchObject({ attempts: 6, replayed: true });
    expect(reports.map(({ next }) => next.kind)).toEqual([
      'retry',
      'wait',
      'wait',
      'retry',
      'wait',
      'return',
    ]);
  });

  it('is waited out also where nothing is said of retry', async () => {
    const { url } = await server.start([{ ...IN_PROGRESS, headers: { 'retry-after': '0' } }, replayed]);
    jest.spyOn(Math, 'random').mockReturnValue(0);
    const charge = endpoint({ method: 'POST', baseUrl: url, path: '/charges', idempotency: {} });
    expect(await charge({ body: {} })).toMatchObject({ attempts: 2, replayed: true });
  });

  it('is known by the code of another server', async () => {
    const busy: ScriptedAnswer = { status: 409, body: { error: { code: 'E_BUSY' } } };
    const { url } = await server.start([busy, replayed, IN_PROGRESS]);
    const charge = endpoint({
      method: 'POST',
      baseUrl: url,
      path: '/charges',
      retry: { backoff: AT_ONCE },
      idempotency: { codes: { inProgress: 'E_BUSY' } },
    });
    expect(await charge({ body: {} })).toMatchObject({ attempts: 2, replayed: true });
    await failureAs(AnswerError, 'CALL_REFUSED', charge({ body: {} }));
  });

  it('ends with the time of the call, as an outcome that is unknown', async () => {
    const last = { ...IN_PROGRESS, headers: { 'retry-after': '31' } };
    const { url, requests } = await server.start([IN_PROGRESS, IN_PROGRESS, last]);
    const charge = endpoint({
      method: 'POST',
      baseUrl: url,
      path: '/charges',
      retry: { backoff: AT_ONCE },
      idempotency: {},
    });
    const error = await failureAs(AnswerError, 'CALL_IN_PROGRESS', charge({ body: {} }));
    expect(error).toMatchObject({ effect: 'unknown', attempts: 3, answer: { status: 409 } });
    expect(requests).toHaveLength(3);
    expect(error.message).toContain('found the first request with its key still running');
    expect(error.message).toContain(`retry with key ${error.key ?? ''}`);
  });
});
