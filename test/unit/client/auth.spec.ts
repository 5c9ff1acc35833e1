import { afterEach, describe, expect, it } from '@jest/globals';
import { apiKey, bearer, env } from '../../../lib/client/auth.js';

const NAME = 'CLIENT_AUTH_SPEC_TOKEN';

afterEach(() => {
  Reflect.deleteProperty(process.env, NAME);
});

describe('env', () => {
  it('reads the variable when it is asked, and not before', () => {
    const secret = env(NAME);
    process.env[NAME] = 'first';
    expect(secret()).toBe('first');
    process.env[NAME] = 'rotated';
    expect(secret()).toBe('rotated');
  });

  it.each([undefined, ''])('names the variable that is %j', (value) => {
    if (value !== undefined) process.env[NAME] = value;
    expect(env(NAME)).toThrow(`the environment variable ${NAME} is not set`);
  });

  it('says so where there is no environment, as in a browser', () => {
    const platform = Object.getOwnPropertyDescriptor(globalThis, 'process')!;
    Object.defineProperty(globalThis, 'process', { configurable: true, value: undefined });
    try {
      expect(env(NAME)).toThrow(`the environment variable ${NAME} is not set`);
    } finally {
      Object.defineProperty(globalThis, 'process', platform);
    }
  });
});

describe.each([
  ['bearer', bearer, 'authorization', 'Bearer s3cret'],
  ['apiKey', apiKey.bind(undefined, 'X-API-Key'), 'X-API-Key', 's3cret'],
] as const)('%s', (_, auth, header, value) => {
  it.each([
    ['a string', 's3cret'],
    ['a function', (): string => 's3cret'],
    ['an asynchronous function', async (): Promise<string> => 's3cret'],
  ])('takes its secret from %s', async (_kind, secret) => {
    expect(await auth(secret)()).toEqual({ [header]: value });
  });

  it('asks for its secret each time', async () => {
    let asked = 0;
    const resolve = auth(() => `secret ${++asked}`);
    expect(asked).toBe(0);
    await resolve();
    await resolve();
    expect(asked).toBe(2);
  });

  it.each(['', (): string => '', async (): Promise<string> => ''])(
    'sends no empty secret (%p)',
    async (secret) => {
      await expect(auth(secret)()).rejects.toThrow('the secret is empty');
    },
  );
});
