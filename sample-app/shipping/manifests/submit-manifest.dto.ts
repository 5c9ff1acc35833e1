import { ApiProperty } from '@nestjs/swagger';
import { ArrayNotEmpty, IsArray, IsUUID } from 'class-validator';
import { KeyedDto } from '../keyed.dto.js';

/** Body of `POST /api/v1/manifests/submit`. */
export class SubmitManifestDto extends KeyedDto {
  @ApiProperty({ type: [String], example: ['0b8f4f0e-6f0c-4a55-9a3e-1d1f3f6a7c01'] })
  @IsArray()
  @ArrayNotEmpty()
  @IsUUID(undefined, { each: true })
  orderIds!: string[];
}
