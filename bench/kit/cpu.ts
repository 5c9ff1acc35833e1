import { readdir, readFile } from 'node:fs/promises';

/** Ticks of /proc/…/stat are hundredths of a second on every Linux there is. */
const MS_PER_TICK = 10;

interface ProcessTimes {
  readonly parent: number;
  /** Milliseconds of its own, user and system. */
  readonly own: number;
  /** Milliseconds of its children that ended. */
  readonly children: number;
}

/** CPU time of one process with all its threads, in milliseconds; undefined where it cannot be told. */
export async function cpuOf(pid: number): Promise<number | undefined> {
  return (await timesOf(pid))?.own;
}

/** The same in nanoseconds where the kernel counts them: ticks are a fiftieth of a short measurement. */
export async function preciseCpuOf(pid: number): Promise<number | undefined> {
  const threads = await readdir(`/proc/${pid}/task`).catch(() => []);
  const nanoseconds = await Promise.all(threads.map((thread) => nanosecondsOf(`${pid}/task/${thread}`)));
  const sum = nanoseconds.reduce((total, each) => total + each, 0);
  return sum > 0 ? sum / 1e6 : cpuOf(pid);
}

/**
 * CPU time of a process, its children, and those of its children that ended, in milliseconds: of a PostgreSQL server, say,
 * whose sessions are processes that come and go.
 */
export async function cpuOfFamily(pid: number): Promise<number | undefined> {
  const parent = await timesOf(pid);
  if (parent === undefined) return undefined;
  const children = await Promise.all((await childrenOf(pid)).map(sessionCpuOf));
  return children.reduce((sum, cpu) => sum + cpu, parent.own + parent.children);
}

async function childrenOf(pid: number): Promise<number[]> {
  const listed = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8').catch(() => undefined);
  if (listed !== undefined) return listed.split(' ').filter(Boolean).map(Number);
  // Not every kernel lists children.
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  const parents = await Promise.all(pids.map(async (each) => (await timesOf(each))?.parent));
  return pids.filter((_, index) => parents[index] === pid);
}

/** A session is one thread, and its share of a measurement is not many ticks. */
async function sessionCpuOf(pid: number): Promise<number> {
  const nanoseconds = await nanosecondsOf(`${pid}`);
  return nanoseconds > 0 ? nanoseconds / 1e6 : ((await timesOf(pid))?.own ?? 0);
}

/** What a thread has had; 0 where the kernel does not count it. */
async function nanosecondsOf(thread: string): Promise<number> {
  const statistics = await readFile(`/proc/${thread}/schedstat`, 'utf8').catch(() => '');
  return Number(statistics.split(' ')[0]);
}

async function timesOf(pid: number): Promise<ProcessTimes | undefined> {
  const line = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined);
  if (line === undefined) return undefined;
  // The second field is the name in parentheses, which may hold anything.
  const fields = line
    .slice(line.lastIndexOf(')') + 2)
    .split(' ')
    .map(Number);
  return {
    parent: fields[1]!,
    own: (fields[11]! + fields[12]!) * MS_PER_TICK,
    children: (fields[13]! + fields[14]!) * MS_PER_TICK,
  };
}
