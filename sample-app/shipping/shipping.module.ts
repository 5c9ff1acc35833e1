import { Module } from '@nestjs/common';
import { APP_FILTER } from '@nestjs/core';
import { TypeOrmModule } from '@nestjs/typeorm';
import { AuthModule } from '../auth/auth.module.js';
import { EnvelopeFilter } from './envelope.filter.js';
import { Label } from './labels/label.entity.js';
import { LabelsController } from './labels/labels.controller.js';
import { LabelsService } from './labels/labels.service.js';
import { Manifest } from './manifests/manifest.entity.js';
import { ManifestsController } from './manifests/manifests.controller.js';
import { ShippingOrder } from './orders/shipping-order.entity.js';
import { ShippingOrdersController } from './orders/shipping-orders.controller.js';
import { ShippingOrdersService } from './orders/shipping-orders.service.js';

/** The shipping API: orders, manifests and labels, with the key in the body. */
@Module({
  imports: [AuthModule, TypeOrmModule.forFeature([Label, Manifest, ShippingOrder])],
  controllers: [LabelsController, ManifestsController, ShippingOrdersController],
  providers: [{ provide: APP_FILTER, useClass: EnvelopeFilter }, LabelsService, ShippingOrdersService],
})
export class ShippingModule {}
