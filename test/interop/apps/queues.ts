import { AsyncResource } from 'node:async_hooks';
import { setImmediate } from 'node:timers/promises';
import { Body, Controller, HttpException, Param, Post, Query } from '@nestjs/common';
import Bottleneck from 'bottleneck';
import DataLoader from 'dataloader';
import { Idempotent } from 'nestjs-pg-idempotency';
import PQueue from 'p-queue';
import { Effects, run, type Effect, type NamedBody } from './base.js';

type Work = () => Promise<Effect>;

interface Loaded {
  readonly work: Work;
}

/** A queue for one statement at a time, which requests share. */
interface Queue {
  run(work: Work): Promise<Effect>;
  /** How many stand in it, beside the one that runs. */
  size(): number;
}

const QUEUES: Record<string, () => Queue> = {
  'p-queue': () => {
    const queue = new PQueue({ concurrency: 1 });
    return { run: (work) => queue.add(work) as Promise<Effect>, size: () => queue.size };
  },
  bottleneck: () => {
    const limiter = new Bottleneck({ maxConcurrent: 1 });
    return { run: (work) => limiter.schedule(work), size: () => limiter.queued() };
  },
};

/** Two requests that share a queue. */
class Meeting {
  readonly firstRuns = gate();
  readonly secondLoaded = gate();
  readonly secondWritten = gate();
  readonly queues = new Map<string, Queue>();

  queue(name: string): Queue {
    const queue = this.queues.get(name) ?? QUEUES[name]!();
    this.queues.set(name, queue);
    return queue;
  }
}

const meetings = new Map<string, Meeting>();

@Controller('queues/:queue')
class QueuesController {
  constructor(private readonly effects: Effects) {}

  /** Holds the queue until the second request is in it, and fails after the second one's statement. */
  @Post('first')
  @Idempotent()
  async first(@Param('queue') name: string, @Body() { name: effect }: NamedBody): Promise<never> {
    const meeting = meetingOf(effect);
    const queue = meeting.queue(name);
    await queue.run(async () => {
      meeting.firstRuns.open();
      while (queue.size() === 0) await setImmediate();
      return this.effects.write(`${effect} first`);
    });
    await meeting.secondWritten.promise;
    throw new HttpException('Payment required', 402);
  }

  @Post('second')
  @Idempotent()
  async second(
    @Param('queue') name: string,
    @Query('bind') bind: string | undefined,
    @Body() { name: effect }: NamedBody,
  ): Promise<Effect> {
    const meeting = meetingOf(effect);
    await meeting.firstRuns.promise;
    const work = (): Promise<Effect> => this.effects.write(`${effect} second`);
    const written = await meeting.queue(name).run(bind === undefined ? work : AsyncResource.bind(work));
    meeting.secondWritten.open();
    return written;
  }
}

/** One loader for all requests, which is the mistake: a batch runs in the context of the request that completes it. */
const dispatchers: (() => void)[] = [];
const loader = new DataLoader<Loaded, Effect>((items) => Promise.all(items.map(({ work }) => work())), {
  cache: false,
  batchScheduleFn: (dispatch) => dispatchers.push(dispatch),
});

@Controller('loader')
class LoaderController {
  constructor(private readonly effects: Effects) {}

  /** Completes the batch, and fails after it. */
  @Post('first')
  @Idempotent()
  async first(@Body() { name: effect }: NamedBody): Promise<never> {
    await meetingOf(effect).secondLoaded.promise;
    const loaded = loader.load({ work: () => this.effects.write(`${effect} first`) });
    dispatchers.splice(0).forEach((dispatch) => dispatch());
    await loaded;
    await meetingOf(effect).secondWritten.promise;
    throw new HttpException('Payment required', 402);
  }

  @Post('second')
  @Idempotent()
  async second(
    @Query('bind') bind: string | undefined,
    @Body() { name: effect }: NamedBody,
  ): Promise<Effect> {
    const meeting = meetingOf(effect);
    const work = (): Promise<Effect> => this.effects.write(`${effect} second`);
    const loaded = loader.load({ work: bind === undefined ? work : AsyncResource.bind(work) });
    meeting.secondLoaded.open();
    const written = await loaded;
    meeting.secondWritten.open();
    return written;
  }
}

function meetingOf(name: string): Meeting {
  const meeting = meetings.get(name) ?? new Meeting();
  meetings.set(name, meeting);
  return meeting;
}

function gate(): { promise: Promise<void>; open: () => void } {
  let open!: () => void;
  const promise = new Promise<void>((resolve) => (open = resolve));
  return { promise, open };
}

run({ controllers: [QueuesController, LoaderController] });
