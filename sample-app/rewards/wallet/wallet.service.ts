import { Injectable } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import { Repository } from 'typeorm';
import { InsufficientFundsException } from './insufficient-funds.exception.js';
import { Wallet } from './wallet.entity.js';

/** Looks into wallets, and takes money out of them. */
@Injectable()
export class WalletService {
  constructor(@InjectRepository(Wallet) private readonly wallets: Repository<Wallet>) {}

  /** The client's wallet. */
  async find(clientId: string): Promise<Wallet> {
    return this.wallets.findOneByOrFail({ clientId });
  }

  /**
   * Takes the amount out of the client's wallet. One statement checks and deducts, so that simultaneous
   * requests cannot both spend the same money.
   *
   * @throws InsufficientFundsException when the wallet holds less.
   */
  async charge(clientId: string, amount: string): Promise<void> {
    const { affected } = await this.wallets
      .createQueryBuilder()
      .update()
      .set({ balance: () => 'balance - :amount' })
      .where('client_id = :clientId AND balance >= :amount', { clientId, amount })
      .execute();
    if (affected !== 1) throw new InsufficientFundsException();
  }
}
