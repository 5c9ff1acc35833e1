import { Controller } from '@nestjs/common';
import { initContract } from '@ts-rest/core';
import { TsRest, tsRestHandler, TsRestHandler, TsRestRequest, type NestRequestShapes } from '@ts-rest/nest';
import { Idempotent } from 'nestjs-pg-idempotency';
import { z } from 'zod';
import { Effects, run } from './base.js';

const c = initContract();
const post = <const Path extends string>(path: Path) =>
  ({
    method: 'POST' as const,
    path,
    body: z.object({ name: z.string() }),
    responses: { 201: c.type<{ id: number; name: string; nonce: string }>(), 402: c.type<{ why: string }>() },
  }) as const;
const contract = c.router({
  above: post('/above'),
  below: post('/below'),
  refusal: post('/refusal'),
  older: post('/older'),
});

@Controller()
class TsRestController {
  constructor(private readonly effects: Effects) {}

  @Idempotent()
  @TsRestHandler(contract.above)
  above() {
    return tsRestHandler(contract.above, async ({ body }) => ({
      status: 201,
      body: await this.effects.write(body.name),
    }));
  }

  @TsRestHandler(contract.below)
  @Idempotent()
  below() {
    return tsRestHandler(contract.below, async ({ body }) => ({
      status: 201,
      body: await this.effects.write(body.name),
    }));
  }

  @TsRestHandler(contract.refusal)
  @Idempotent()
  refusal() {
    return tsRestHandler(contract.refusal, async ({ body }) => {
      await this.effects.write(body.name);
      return { status: 402, body: { why: 'no funds' } };
    });
  }

  @TsRest(contract.older)
  @Idempotent()
  async older(@TsRestRequest() { body }: NestRequestShapes<typeof contract>['older']) {
    return { status: 201 as const, body: await this.effects.write(body.name) };
  }
}

run({ controllers: [TsRestController] });
