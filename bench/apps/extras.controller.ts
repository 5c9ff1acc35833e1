import { Body, Controller, Post } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import { Idempotent } from 'nestjs-pg-idempotency';
import { Repository } from 'typeorm';
import { Order, Wallet, WALLETS } from './shop.js';

/** A response of that many bytes. */
interface Sized {
  readonly bytes: number;
}

let release: () => void = () => undefined;
let released = new Promise<void>((resolve) => (release = resolve));

/** Lets the requests go that are being held. */
export function releaseHeld(): void {
  release();
  released = new Promise<void>((resolve) => (release = resolve));
}

/** Routes of single benchmarks: responses of a given size, and requests that take as long as they are told to. */
@Controller('extras')
export class ExtrasController {
  constructor(
    @InjectRepository(Wallet) private readonly wallets: Repository<Wallet>,
    @InjectRepository(Order) private readonly orders: Repository<Order>,
  ) {}

  /** An order whose request says nothing of it: so one body under many keys does not come down to one row. */
  @Post('orders')
  @Idempotent()
  async order(): Promise<Order> {
    const wallet = 1 + Math.floor(Math.random() * WALLETS);
    await this.wallets.decrement({ id: wallet }, 'balance', 1);
    return this.orders.save({ wallet, amount: 1, reference: 'an order of a benchmark' });
  }

  @Post('sized')
  @Idempotent()
  sized(@Body() { bytes }: Sized): object {
    return { text: incompressible(bytes - '{"text":""}'.length) };
  }

  @Post('held')
  @Idempotent({ whenInProgress: { wait: '60s' }, maxDuration: '60s' })
  async held(): Promise<object> {
    await released;
    return { held: true };
  }

  /** What it costs to keep as many requests waiting without this library. */
  @Post('held-bare')
  async heldBare(): Promise<object> {
    await released;
    return { held: true };
  }
}

const LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';

/** PostgreSQL compresses what is large: text that repeats itself would look cheaper than it is. */
function incompressible(length: number): string {
  return Array.from({ length }, () => LETTERS[Math.floor(Math.random() * LETTERS.length)]).join('');
}
