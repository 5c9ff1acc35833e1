import { ApiProperty } from '@nestjs/swagger';
import { IsNotEmpty } from 'class-validator';
import { IsText } from '../../text.js';

const LONGEST_MESSAGE = 20_000;

/** Body of `POST /tickets/{id}/messages`. */
export class CreateMessageDto {
  @ApiProperty({ example: 'Thanks' })
  @IsText(LONGEST_MESSAGE)
  @IsNotEmpty()
  body!: string;
}
