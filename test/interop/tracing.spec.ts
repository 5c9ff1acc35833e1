import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { eventually } from '../helpers/conditions.js';
import { EVERYWHERE, expectProtected, expectReplay, NEST11, Scene } from './scene.js';

interface Span {
  readonly name: string;
  readonly scope: string;
  readonly trace: string;
}

const INSTRUMENTATION = '@opentelemetry/instrumentation-';

describe.each(EVERYWHERE)('OpenTelemetry on Nest $nest ($adapter)', (platform) => {
  const scene = new Scene('otel', platform, { preload: 'otel-preload' });
  beforeAll(() => scene.open());
  afterAll(() => scene.close());

  it('one effect and one replay', async () => {
    await expectProtected(scene);
    expect(scene.complaints()).toEqual([]);
  });

  it('the spans of a request are one trace: the server, the framework, Nest, the database', async () => {
    await scene.post('/effects', 'traced');
    await eventually(async () => {
      const spans = (await scene.get('/spans')) as Span[];
      const write = spans.find(
        ({ scope, name }) => scope === `${INSTRUMENTATION}pg` && name.includes('INSERT'),
      );
      const scopes = new Set(spans.filter(({ trace }) => trace === write?.trace).map(({ scope }) => scope));
      expect(scopes).toContain(`${INSTRUMENTATION}http`);
      expect(scopes).toContain(
        platform.adapter === 'express' ? `${INSTRUMENTATION}express` : '@fastify/otel',
      );
      // Its instrumentation supports Nest below 12, and does nothing on 12.
      expect(scopes.has(`${INSTRUMENTATION}nestjs-core`)).toBe(platform.nest === 11);
    });
  });

  it('the span of the handler has its name', async () => {
    await scene.post('/effects', 'named');
    const spans = (await scene.get('/spans')) as Span[];
    const names = spans
      .filter(({ scope }) => scope === `${INSTRUMENTATION}nestjs-core`)
      .map(({ name }) => name);
    if (platform.nest === 11)
      expect(names).toEqual(expect.arrayContaining(['OtelController.create', 'create']));
    else expect(names).toEqual([]);
  });
});

describe.each(NEST11)('Sentry on Nest $nest ($adapter)', (platform) => {
  const scene = new Scene('sentry', platform, { preload: 'sentry-preload' });
  beforeAll(() => scene.open());
  afterAll(() => scene.close());

  it('one effect and one replay', async () => {
    await expectProtected(scene);
    expect(scene.complaints()).toEqual([]);
  });

  it('a refusal undoes the writes and is replayed', async () => {
    const key = { 'Idempotency-Key': 'refused by the handler' };
    const original = await scene.post('/refusals', 'refused', key);
    expect(original.status).toBe(402);
    expectReplay(await scene.post('/refusals', 'refused', key), original);
    expect(await scene.rows('refused')).toBe(0);
  });

  it('transactions and their spans are there', async () => {
    await scene.post('/effects', 'traced');
    await eventually(async () => {
      const sent = (await scene.get('/spans')) as string[];
      expect(sent).toContain('POST /effects');
      expect(sent).toEqual(expect.arrayContaining([expect.stringMatching(/^db .*INSERT/)]));
      expect(sent).toEqual(expect.arrayContaining([expect.stringMatching(/nestjs.* create$/)]));
    });
  });
});
