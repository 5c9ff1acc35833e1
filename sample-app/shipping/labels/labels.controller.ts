import { Body, Controller, Param, Post, UseGuards } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';
import { Idempotent } from 'nestjs-pg-idempotency';
import { ApiKeyGuard } from '../../auth/api-key.guard.js';
import { ClientId } from '../../auth/client-id.decorator.js';
import { success, type Envelope } from '../envelope.js';
import { KeyedDto } from '../keyed.dto.js';
import { SHIPPING_IDEMPOTENCY } from '../shipping.idempotency.js';
import { LabelPathDto } from './label-path.dto.js';
import { LabelsService } from './labels.service.js';

/** `/api/v1/labels/…` */
@ApiTags('shipping')
@Controller('api/v1/labels')
@UseGuards(ApiKeyGuard)
export class LabelsController {
  constructor(private readonly labels: LabelsService) {}

  /** The same key for another label is a different request: the endpoint is the route, the path counts besides. */
  @Post(':id/reprint')
  @Idempotent(SHIPPING_IDEMPOTENCY)
  async reprint(
    @ClientId() clientId: string,
    @Param() { id: labelId }: LabelPathDto,
    @Body() _body: KeyedDto,
  ): Promise<Envelope<{ labelId: string; printCount: number }>> {
    return success({ labelId, printCount: await this.labels.print(clientId, labelId) });
  }
}
