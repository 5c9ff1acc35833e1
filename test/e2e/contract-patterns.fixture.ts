import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Body, Controller, Inject, Post } from '@nestjs/common';
import {
  CurrentExecution,
  Idempotent,
  IdempotencyService,
  type IdempotencyExecution,
} from 'nestjs-pg-idempotency';
import { startApp, type Adapter, type TestApp } from '../helpers/app.js';

/** What goes wrong with a call: it takes effect and its answer is lost, or it is refused without an effect. */
type Trouble = 'lost' | 'refused';

/** The outside: a mail server and other services, each of which does a thing once per key where it is given one. */
export class Services {
  /** Keys of the calls that came, by service. */
  readonly calls: Record<string, (string | undefined)[]> = {};
  /** The next call of a service goes wrong like this. */
  readonly troubles = new Map<string, Trouble>();
  /** Answers wait for it. */
  gate: Promise<void> = Promise.resolve();
  readonly #done: Record<string, string[]> = {};
  readonly #server = createServer((request, response) => void this.#answer(request, response));
  #url = '';

  static async start(): Promise<Services> {
    const services = new Services();
    services.#server.listen(0, '127.0.0.1');
    await once(services.#server, 'listening');
    services.#url = `http://127.0.0.1:${(services.#server.address() as AddressInfo).port}`;
    return services;
  }

  /** How many things a service has done. */
  done(service: string): number {
    return this.#done[service]?.length ?? 0;
  }

  /** What a handler does to reach one; resolves with the number of what was done. */
  async call(service: string, key?: string): Promise<number> {
    const headers = key === undefined ? undefined : { 'Idempotency-Key': key };
    const answer = await fetch(`${this.#url}/${service}`, { method: 'POST', headers });
    if (!answer.ok) throw new Error(`${service} answered ${answer.status}`);
    return Number(await answer.text());
  }

  async close(): Promise<void> {
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const service = (request.url ?? '').slice(1);
    const key = request.headers['idempotency-key']?.toString();
    (this.calls[service] ??= []).push(key);
    const trouble = this.troubles.get(service);
    this.troubles.delete(service);
    if (trouble === 'refused') {
      response.writeHead(503).end();
      return;
    }
    const number = this.#do(service, key);
    await this.gate;
    if (trouble === 'lost') request.socket.destroy();
    else response.end(String(number));
  }

  #do(service: string, key: string | undefined): number {
    const done = (this.#done[service] ??= []);
    const before = key === undefined ? -1 : done.indexOf(key);
    return before < 0 ? done.push(key ?? '') : before + 1;
  }
}

/** An application whose effects are outside: `/receipts` sends an e-mail, `/fulfilments` takes three services. */
export function startOutsideApp(adapter: Adapter, databaseUrl: string, services: Services): Promise<TestApp> {
  const providers = [{ provide: Services, useValue: services }];
  return startApp({
    adapter,
    databaseUrl,
    providers,
    controllers: [ReceiptsController, FulfilmentsController],
  });
}

@Controller()
class ReceiptsController {
  constructor(@Inject(Services) private readonly services: Services) {}

  @Post('receipts')
  @Idempotent({ mode: 'lease', onOutcomeUnknown: 'rerun' })
  async send(@CurrentExecution() { deriveKey }: IdempotencyExecution): Promise<{ mail: number }> {
    return { mail: await this.services.call('mail', deriveKey('receipt')) };
  }

  @Post('unprotected-receipts')
  async sendUnprotected(): Promise<{ mail: number }> {
    return { mail: await this.services.call('mail') };
  }
}

@Controller('fulfilments')
class FulfilmentsController {
  constructor(
    @Inject(Services) private readonly services: Services,
    private readonly idempotency: IdempotencyService,
  ) {}

  @Post()
  @Idempotent({ mode: 'lease', onOutcomeUnknown: 'rerun' })
  async fulfil(
    @Body() { client }: { client: string },
    @CurrentExecution() execution: IdempotencyExecution,
  ): Promise<object> {
    const step = async (name: string): Promise<number> => {
      const key = execution.deriveKey(name);
      const task = {
        client,
        endpoint: `fulfil/${name}`,
        key,
        mode: 'lease',
        onOutcomeUnknown: 'rerun',
      } as const;
      const { value } = await this.idempotency.run(task, ({ deriveKey }) =>
        this.services.call(name, deriveKey('call')),
      );
      return value;
    };
    return {
      attempt: execution.attempt,
      reserve: await step('reserve'),
      charge: await step('charge'),
      ship: await step('ship'),
    };
  }
}
