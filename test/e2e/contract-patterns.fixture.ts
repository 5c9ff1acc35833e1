import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Body, Controller, Inject, Post } from '@nestjs/common';
import {
  CurrentExecution,
  Idempotent,
  IdempotencyService,
  type Duration,
  type IdempotencyExecution,
} from 'nestjs-pg-idempotency';
import { startApp, type Adapter, type TestApp } from '../helpers/application.js';

/** What goes wrong with a call: it takes effect and its answer is lost, or it is refused without an effect. */
type Trouble = 'lost' | 'refused';

/** The outside: a mail server and other services, each of which does a thing once per key where it is given one. */
export class Services {
  /** Keys of the calls that came, by service. */
  readonly calls: Record<string, (string | undefined)[]> = {};
  /** The next call of a service goes wrong like this. */
  readonly troubles = new Map<string, Trouble>();
  /** What answers of a service wait for, after it has done its thing. */
  readonly gates = new Map<string, Promise<void>>();
  readonly #done: Record<string, string[]> = {};
  readonly #server = createServer((request, response) => void this.#answer(request, response));
  /** Where they listen. */
  url = '';

  static async start(): Promise<Services> {
    const services = new Services();
    services.#server.listen(0, '127.0.0.1');
    await once(services.#server, 'listening');
    services.url = `http://127.0.0.1:${(services.#server.address() as AddressInfo).port}`;
    return services;
  }

  /** How many things a service has done. */
  done(service: string): number {
    return this.#done[service]?.length ?? 0;
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
    await this.gates.get(service);
    if (trouble === 'lost') request.socket.destroy();
    else response.end(String(number));
  }

  #do(service: string, key: string | undefined): number {
    const done = (this.#done[service] ??= []);
    const before = key === undefined ? -1 : done.indexOf(key);
    return before < 0 ? done.push(key ?? '') : before + 1;
  }
}

/**
 * An application whose effects are outside: `/receipts` sends an e-mail, `/fulfilments` takes three services. Nobody waits
 * long for an instance with a short lease that died.
 */
export function startOutsideApp(
  adapter: Adapter,
  databaseUrl: string,
  servicesUrl: string,
  lease: Duration = '30s',
): Promise<TestApp> {
  return startApp({
    adapter,
    databaseUrl,
    idempotency: { lease },
    providers: [{ provide: ServicesClient, useValue: new ServicesClient(servicesUrl) }],
    controllers: [ReceiptsController, FulfilmentsController],
  });
}

/** The services, as handlers reach them. */
class ServicesClient {
  constructor(private readonly url: string) {}

  /** Resolves with the number of what was done. */
  async call(service: string, key?: string): Promise<number> {
    const headers = key === undefined ? undefined : { 'Idempotency-Key': key };
    const answer = await fetch(`${this.url}/${service}`, { method: 'POST', headers });
    if (!answer.ok) throw new Error(`${service} answered ${answer.status}`);
    return Number(await answer.text());
  }
}

const RESUMABLE = { mode: 'lease', onOutcomeUnknown: 'rerun' } as const;

@Controller()
class ReceiptsController {
  constructor(@Inject(ServicesClient) private readonly services: ServicesClient) {}

  @Post('receipts')
  @Idempotent(RESUMABLE)
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
    @Inject(ServicesClient) private readonly services: ServicesClient,
    private readonly idempotency: IdempotencyService,
  ) {}

  @Post()
  @Idempotent(RESUMABLE)
  async fulfil(
    @Body() { client }: { client: string },
    @CurrentExecution() execution: IdempotencyExecution,
  ): Promise<object> {
    const step = async (name: string): Promise<number> => {
      const key = execution.deriveKey(name);
      const task = { client, endpoint: `fulfil/${name}`, key, ...RESUMABLE };
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
