// The thread that wakes kit/delay-process.ts: a futex is inexact by a twentieth of a millisecond, a timer by a whole one.
import { parentPort, workerData } from 'node:worker_threads';

/** What the thread shares with whom it wakes. */
export interface Alarm {
  /** Counts the alarms that were set. */
  readonly turns: Int32Array<SharedArrayBuffer>;
  /** When the last of them is due, in milliseconds of the machine's clock. */
  readonly due: Float64Array<SharedArrayBuffer>;
}

const { turns, due } = workerData as Alarm;

for (let seen = 0; ;) {
  Atomics.wait(turns, 0, seen);
  seen = Atomics.load(turns, 0);
  const milliseconds = due[0]! - Number(process.hrtime.bigint()) / 1e6;
  if (milliseconds > 0) Atomics.wait(turns, 0, seen, milliseconds);
  parentPort!.postMessage(null);
}
