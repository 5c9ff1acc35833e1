import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { readSettings } from '../../sample-app/settings.js';
import { runTypeScript, type TypeScriptProcess } from '../helpers/child-process.js';
import { createEmptyDatabase, type TestDatabase } from '../helpers/database.js';
import { sendRequest, type HttpResponse } from '../helpers/http.js';
import { CLIENT, OTHER_CLIENT } from './rewards.fixture.js';

const READY = /^Ready on (http:\/\/127\.0\.0\.1:\d+) \((express|fastify)\)$/;

describe('start of the sample application', () => {
  let database: TestDatabase;
  let started: TypeScriptProcess | undefined;

  beforeAll(async () => {
    database = await createEmptyDatabase();
  });

  afterEach(async () => {
    await started?.kill();
    started = undefined;
  });

  afterAll(async () => {
    await database.drop();
  });

  function start(environment: Record<string, string>): TypeScriptProcess {
    started = runTypeScript(`import './sample-app/main.ts';`, {
      DATABASE_URL: database.url,
      PORT: '0',
      ADAPTER: '',
      ...environment,
    });
    return started;
  }

  /** Does what the printed command does. */
  async function paste(command: string): Promise<HttpResponse> {
    const headers = [...command.matchAll(/ -H '([^:']+): ([^']+)'/g)].map(
      ([, name = '', value = '']) => [name, value] as const,
    );
    const body = / -d '([^']+)'/.exec(command)?.[1];
    const url = / '(http:[^']+)'$/.exec(command)?.[1] ?? '';
    return sendRequest(url, { method: body === undefined ? 'GET' : 'POST', headers, body });
  }

  async function linesUntilReady(process: TypeScriptProcess): Promise<string[]> {
    const lines = [await process.nextLine()];
    while (!READY.test(lines.at(-1)!)) lines.push(await process.nextLine());
    return lines;
  }

  it.each(['express', 'fastify'])(
    'prints the clients and commands that work, serves and stops on %s',
    async (ADAPTER) => {
      const process = start({ ADAPTER });
      const lines = await linesUntilReady(process);
      const [, address = '', adapter] = READY.exec(lines.at(-1)!) ?? [];
      expect(adapter).toBe(ADAPTER);
      for (const { 'X-API-Key': apiKey, 'X-API-Secret': secret } of [CLIENT, OTHER_CLIENT]) {
        expect(lines.join('\n')).toContain(`: X-API-Key ${apiKey}, X-API-Secret ${secret}`);
      }
      expect(lines.join('\n')).not.toContain(database.url);
      expect(lines[0]).toContain(`${address}/ `);
      expect(lines[0]).toContain(`${address}/docs `);

      const commands = lines.filter((line) => line.startsWith('curl '));
      expect(commands).toHaveLength(11);
      for (const command of commands) {
        const first = await paste(command);
        expect(`${command}: ${first.status}`).toMatch(/: 20[012]$/);
        if (!command.includes(' -d ')) continue;
        // On a second adapter the keys are used already.
        const again = await paste(command);
        expect(again.headers['idempotency-replayed']).toBe('true');
        expect(again.text).toBe(first.text);
      }

      await process.kill('SIGTERM');
      expect(process.process.exitCode).toBe(0);
    },
  );

  it('refuses an adapter that it does not know', async () => {
    const process = start({ ADAPTER: 'koa' });
    const message = 'ADAPTER=koa is not known: set one of express, fastify.';
    await expect(process.nextLine()).rejects.toThrow(message);
    await process.kill();
    expect(process.process.exitCode).toBe(1);
  });

  it('takes its settings from the environment', () => {
    expect(readSettings({})).toEqual({ port: 3000, adapter: 'express' });
    expect(readSettings({ PORT: '', ADAPTER: '' })).toEqual({ port: 3000, adapter: 'express' });
    expect(readSettings({ PORT: '8080', ADAPTER: 'fastify' })).toEqual({ port: 8080, adapter: 'fastify' });
    for (const PORT of ['65536', '-1', '80.5', '0x50', 'http']) {
      const message = `PORT=${PORT} is not a port: set a number from 0 to 65535.`;
      expect(() => readSettings({ PORT })).toThrow(message);
    }
  });

  it('refuses a port that is in use', async () => {
    const occupant = createServer().listen(0, '127.0.0.1');
    await once(occupant, 'listening');
    try {
      const { port } = occupant.address() as AddressInfo;
      const process = start({ PORT: String(port) });
      await expect(process.nextLine()).rejects.toThrow(`Port ${port} is in use`);
      await process.kill();
      expect(process.process.exitCode).toBe(1);
    } finally {
      occupant.close();
    }
  });

  it('refuses a database that cannot be reached', async () => {
    const process = start({ DATABASE_URL: 'postgres://nobody@127.0.0.1:1/nothing' });
    await expect(process.nextLine()).rejects.toThrow('No application: connect ECONNREFUSED 127.0.0.1:1');
  });
});
