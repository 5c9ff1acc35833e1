import { ApiProperty, ApiPropertyOptional } from '@nestjs/swagger';
import { ArrayMaxSize, IsArray, IsIn, IsNotEmpty, IsOptional, IsString, MaxLength } from 'class-validator';

/** Urgency of a ticket, least first. */
const PRIORITIES = ['low', 'normal', 'medium', 'high', 'urgent'];
const STATUSES = ['open', 'pending', 'closed'];
const LONGEST_TITLE = 500;
const MOST_TAGS = 50;

/** Body of `POST /tickets`. */
export class CreateTicketDto {
  @ApiProperty({ example: 'Need help' })
  @IsString()
  @IsNotEmpty()
  @MaxLength(LONGEST_TITLE)
  title!: string;

  /** Default: `normal`. */
  @ApiPropertyOptional({ example: 'high' })
  @IsOptional()
  @IsIn(PRIORITIES)
  priority?: string;

  /** Default: none. */
  @ApiPropertyOptional({ type: [String], example: ['billing'] })
  @IsOptional()
  @IsArray()
  @ArrayMaxSize(MOST_TAGS)
  @IsString({ each: true })
  tags?: string[];
}

/** Body of `PATCH /tickets/{id}`: what is named is changed. */
export class UpdateTicketDto {
  @ApiPropertyOptional({ example: 'Need help' })
  @IsOptional()
  @IsString()
  @IsNotEmpty()
  @MaxLength(LONGEST_TITLE)
  title?: string;

  @ApiPropertyOptional({ example: 'high' })
  @IsOptional()
  @IsIn(PRIORITIES)
  priority?: string;

  @ApiPropertyOptional({ type: [String], example: ['billing'] })
  @IsOptional()
  @IsArray()
  @ArrayMaxSize(MOST_TAGS)
  @IsString({ each: true })
  tags?: string[];

  @ApiPropertyOptional({ example: 'open' })
  @IsOptional()
  @IsIn(STATUSES)
  status?: string;
}
