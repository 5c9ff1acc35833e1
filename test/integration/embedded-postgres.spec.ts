import { existsSync, writeFileSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it, jest } from '@jest/globals';
import {
  startPostgres,
  type RunningPostgres,
  type StartPostgresOptions,
} from '../../sample-app/postgres/embedded-postgres.js';
import { withClient } from '../helpers/admin.js';
import { runTypeScript, type TypeScriptProcess } from '../helpers/child-process.js';
import { eventually } from '../helpers/conditions.js';

interface Description {
  readonly pid: number;
  readonly dataDir: string;
  readonly url: string;
}

describe('embedded PostgreSQL', () => {
  let directory: string;
  let dataDir: string;
  const servers: RunningPostgres[] = [];
  const processes: TypeScriptProcess[] = [];

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'embedded-postgres-spec-'));
    // Where root runs the tests, the server is somebody else, who has to get in.
    await chmod(directory, 0o755);
    dataDir = join(directory, 'data');
  });

  afterEach(async () => {
    await Promise.all(processes.splice(0).map((child) => child.kill()));
    await Promise.all(servers.splice(0).map((server) => server.stop()));
  });

  afterAll(async () => {
    await rm(directory, { recursive: true, force: true });
  });

  async function start(options: Partial<StartPostgresOptions> = {}): Promise<RunningPostgres> {
    const server = await startPostgres({ durable: false, ...options });
    servers.push(server);
    return server;
  }

  async function startInChild(
    options: StartPostgresOptions,
  ): Promise<{ child: TypeScriptProcess; server: Description }> {
    const child = runTypeScript(`
      import { startPostgres } from './sample-app/postgres/embedded-postgres.ts';
      const server = await startPostgres(${JSON.stringify(options)});
      console.log(JSON.stringify(server));
      process.stdin.resume();
      setInterval(() => undefined, 1_000_000);
    `);
    processes.push(child);
    return { child, server: JSON.parse(await child.nextLine()) as Description };
  }

  it('serves on the loopback interface with the settings asked for, and leaves nothing behind', async () => {
    const server = await start({ settings: { work_mem: '7MB' } });
    const names = [
      'listen_addresses',
      'max_connections',
      'server_encoding',
      'fsync',
      'synchronous_commit',
      'work_mem',
    ];
    const settings = await withClient(server.url, (client) =>
      client.query<{ name: string; setting: string }>(
        'SELECT name, current_setting(name) setting FROM unnest($1::text[]) name',
        [names],
      ),
    );
    expect(settings.rows.map(({ setting }) => setting)).toEqual([
      '127.0.0.1',
      '200',
      'UTF8',
      'off',
      'on',
      '7MB',
    ]);
    await Promise.all([server.stop(), server.stop()]);
    await server.stop();
    expect(isAlive(server.pid)).toBe(false);
    expect(existsSync(dirname(server.dataDir))).toBe(false);
  });

  it('keeps data in a directory of its own across restarts, safely', async () => {
    const first = await start({ dataDir, durable: true });
    await withClient(first.url, (client) => client.query('CREATE TABLE kept AS SELECT 42 AS answer'));
    await first.stop();
    const second = await start({ dataDir, durable: true });
    const { rows } = await withClient(second.url, (client) =>
      client.query("SELECT answer, current_setting('fsync') AS fsync FROM kept"),
    );
    expect(rows).toEqual([{ answer: 42, fsync: 'on' }]);
  });

  it('stops with a parent that was killed, and removes the temporary data', async () => {
    const { child, server } = await startInChild({ durable: false });
    expect(isAlive(server.pid)).toBe(true);
    await child.kill('SIGKILL');
    await eventually(() => !isAlive(server.pid));
    await eventually(() => !existsSync(dirname(server.dataDir)));
  });

  it('starts again at once after its parent was killed, with what was committed', async () => {
    const { child, server } = await startInChild({ dataDir, durable: true });
    await withClient(server.url, (client) => client.query('CREATE TABLE kept_again AS SELECT 43 AS answer'));
    await child.kill('SIGKILL');
    const again = await start({ dataDir, durable: true });
    const { rows } = await withClient(again.url, (client) => client.query('SELECT answer FROM kept_again'));
    expect(rows).toEqual([{ answer: 43 }]);
  });

  it('recovers from a crash whose process id belongs to somebody else by now', async () => {
    const { child, server } = await startInChild({ dataDir, durable: true });
    process.kill(server.pid, 'SIGKILL');
    await eventually(() => !isAlive(server.pid));
    await child.kill();
    const lockFile = join(server.dataDir, 'postmaster.pid');
    expect(existsSync(lockFile)).toBe(true);
    writeFileSync(lockFile, `${process.pid}\n${server.dataDir}\n1\n5432\n\n127.0.0.1\n\nready\n`);
    const again = await start({ dataDir, durable: true });
    await withClient(again.url, (client) => client.query('SELECT 1'));
  });

  it('says so when another server uses the directory', async () => {
    const first = await start({ dataDir });
    await expect(start({ dataDir })).rejects.toThrow(
      `Another PostgreSQL server (process ${first.pid}) is running on`,
    );
    await withClient(first.url, (client) => client.query('SELECT 1'));
  });

  it('does not touch a directory that holds something else', async () => {
    const letters = join(directory, 'letters');
    await mkdir(letters);
    writeFileSync(join(letters, 'letter.txt'), 'Dear reader');
    await expect(start({ dataDir: letters })).rejects.toThrow('holds files, but no PostgreSQL data');
    expect(existsSync(join(letters, 'letter.txt'))).toBe(true);
  });

  it('finds its data again where the server cannot enter the directory', async () => {
    const locked = join(directory, 'locked');
    await mkdir(locked, { mode: 0o700 });
    const warnings = jest.spyOn(process, 'emitWarning').mockImplementation(() => undefined);
    const first = await start({ dataDir: join(locked, 'data') });
    await withClient(first.url, (client) => client.query('CREATE TABLE kept AS SELECT 44 AS answer'));
    await first.stop();
    const second = await start({ dataDir: join(locked, 'data') });
    const { rows } = await withClient(second.url, (client) => client.query('SELECT answer FROM kept'));
    expect(rows).toEqual([{ answer: 44 }]);
    expect(second.dataDir).toBe(first.dataDir);
    expect(warnings.mock.calls.length > 0).toBe(process.getuid?.() === 0);
    warnings.mockRestore();
    await second.stop();
    await rm(dirname(second.dataDir), { recursive: true });
  });

  it('shows the log of a server that does not start', async () => {
    await expect(start({ settings: { no_such_setting: 'x' } })).rejects.toThrow(
      /unrecognized configuration parameter "no_such_setting"/,
    );
  });
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
