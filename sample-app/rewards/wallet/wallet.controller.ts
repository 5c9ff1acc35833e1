import { Controller, Get, UseGuards } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';
import { ApiSecretGuard } from '../../auth/api-secret.guard.js';
import { ClientId } from '../../auth/client-id.decorator.js';
import type { Wallet } from './wallet.entity.js';
import { WalletService } from './wallet.service.js';

/** `/api/v1/wallet` */
@ApiTags('rewards')
@Controller('api/v1/wallet')
@UseGuards(ApiSecretGuard)
export class WalletController {
  constructor(private readonly wallets: WalletService) {}

  @Get()
  async show(@ClientId() clientId: string): Promise<Pick<Wallet, 'balance' | 'currency'>> {
    const { balance, currency } = await this.wallets.find(clientId);
    return { balance, currency };
  }
}
