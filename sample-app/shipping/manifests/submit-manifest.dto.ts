import { ApiProperty } from '@nestjs/swagger';
import { ArrayMaxSize, ArrayNotEmpty, ArrayUnique, IsArray, IsUUID } from 'class-validator';
import { KeyedDto } from '../keyed.dto.js';

const MOST_ORDERS = 1_000;

/** The same UUID in capitals is the same order. Entries are validated side by side with this: they may be anything. */
const identify = (id: unknown): string => String(id).toLowerCase();

/** Body of `POST /api/v1/manifests/submit`. */
export class SubmitManifestDto extends KeyedDto {
  @ApiProperty({ type: [String], example: ['0b8f4f0e-6f0c-4a55-9a3e-1d1f3f6a7c01'] })
  @IsArray()
  @ArrayNotEmpty()
  @ArrayMaxSize(MOST_ORDERS)
  @ArrayUnique(identify)
  @IsUUID(undefined, { each: true })
  orderIds!: string[];
}
