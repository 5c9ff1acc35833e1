import { Body, Controller, Post, UseGuards } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';
import { InjectRepository } from '@nestjs/typeorm';
import { Idempotent } from 'nestjs-pg-idempotency';
import { Repository } from 'typeorm';
import { ApiKeyGuard } from '../../auth/api-key.guard.js';
import { ClientId } from '../../auth/client-id.decorator.js';
import { success, type Envelope } from '../envelope.js';
import { ShippingOrdersService } from '../orders/shipping-orders.service.js';
import { SHIPPING_IDEMPOTENCY } from '../shipping.idempotency.js';
import { Manifest } from './manifest.entity.js';
import { SubmitManifestDto } from './submit-manifest.dto.js';

/** `/api/v1/manifests/…` */
@ApiTags('shipping')
@Controller('api/v1/manifests')
@UseGuards(ApiKeyGuard)
export class ManifestsController {
  constructor(
    @InjectRepository(Manifest) private readonly manifests: Repository<Manifest>,
    private readonly orders: ShippingOrdersService,
  ) {}

  /** Without a key, submitting twice makes two manifests. */
  @Post('submit')
  @Idempotent({ ...SHIPPING_IDEMPOTENCY, key: { ...SHIPPING_IDEMPOTENCY.key, required: false } })
  async submit(
    @ClientId() clientId: string,
    @Body() { orderIds }: SubmitManifestDto,
  ): Promise<Envelope<{ id: string; orderIds: string[] }>> {
    await this.orders.requireAll(clientId, orderIds);
    const { id } = await this.manifests.save(this.manifests.create({ clientId, orderIds }));
    return success({ id, orderIds });
  }
}
