import { ArrayNotEmpty, IsArray, IsUUID } from 'class-validator';
import { KeyedDto } from '../keyed.dto.js';

/** Body of `POST /api/v1/manifests/submit`. */
export class SubmitManifestDto extends KeyedDto {
  @IsArray()
  @ArrayNotEmpty()
  @IsUUID(undefined, { each: true })
  orderIds!: string[];
}
