import { Injectable } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import { Repository } from 'typeorm';
import { normaliseMoney } from '../money.js';
import { WalletService } from '../wallet/wallet.service.js';
import { Payout } from './payout.entity.js';

/** Pays money out. */
@Injectable()
export class PayoutsService {
  constructor(
    @InjectRepository(Payout) private readonly payouts: Repository<Payout>,
    private readonly wallets: WalletService,
  ) {}

  /**
   * Creates a withdrawal, and takes it out of the client's wallet. When that fails, the caller's transaction is
   * what takes the withdrawal back.
   */
  async create(clientId: string, requested: string): Promise<Payout> {
    const amount = normaliseMoney(requested);
    const payout = await this.payouts.save(this.payouts.create({ clientId, amount, status: 'completed' }));
    await this.wallets.charge(clientId, amount);
    return payout;
  }
}
