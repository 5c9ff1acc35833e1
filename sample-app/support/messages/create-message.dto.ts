import { ApiProperty } from '@nestjs/swagger';
import { IsNotEmpty, IsString, MaxLength } from 'class-validator';

const LONGEST_MESSAGE = 20_000;

/** Body of `POST /tickets/{id}/messages`. */
export class CreateMessageDto {
  @ApiProperty({ example: 'Thanks' })
  @IsString()
  @IsNotEmpty()
  @MaxLength(LONGEST_MESSAGE)
  body!: string;
}
