import { ApiProperty } from '@nestjs/swagger';
import { IsText } from '../../text.js';

const LONGEST_LABEL = 100;

/** Path of `/api/v1/labels/{id}/reprint`. */
export class LabelPathDto {
  @ApiProperty({ example: '7' })
  @IsText(LONGEST_LABEL)
  id!: string;
}
