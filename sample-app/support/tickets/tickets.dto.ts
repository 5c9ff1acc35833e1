import { ApiProperty, ApiPropertyOptional } from '@nestjs/swagger';
import { ArrayMaxSize, IsArray, IsIn, IsNotEmpty, IsOptional, ValidateIf } from 'class-validator';
import { IsText } from '../../text.js';

/** Urgency of a ticket, least first. */
const PRIORITIES = ['low', 'normal', 'medium', 'high', 'urgent'];
const STATUSES = ['open', 'pending', 'closed'];
const LONGEST_TITLE = 500;
const MOST_TAGS = 50;
const LONGEST_TAG = 200;

/** Other than `@IsOptional()` it lets no null pass: a ticket has all of its fields. */
const IfNamed = (): PropertyDecorator => ValidateIf((_body, value) => value !== undefined);

/** Body of `POST /tickets`. */
export class CreateTicketDto {
  @ApiProperty({ example: 'Need help' })
  @IsText(LONGEST_TITLE)
  @IsNotEmpty()
  title!: string;

  /** Default: `normal`. */
  @ApiPropertyOptional({ type: String, nullable: true, example: 'high' })
  @IsOptional()
  @IsIn(PRIORITIES)
  priority?: string | null;

  /** Default: none. */
  @ApiPropertyOptional({ type: [String], nullable: true, example: ['billing'] })
  @IsOptional()
  @IsArray()
  @ArrayMaxSize(MOST_TAGS)
  @IsText(LONGEST_TAG, { each: true })
  tags?: string[] | null;
}

/** Body of `PATCH /tickets/{id}`: what is named is changed. */
export class UpdateTicketDto {
  @ApiPropertyOptional({ example: 'Need help' })
  @IfNamed()
  @IsText(LONGEST_TITLE)
  @IsNotEmpty()
  title?: string;

  @ApiPropertyOptional({ example: 'high' })
  @IfNamed()
  @IsIn(PRIORITIES)
  priority?: string;

  @ApiPropertyOptional({ type: [String], example: ['billing'] })
  @IfNamed()
  @IsArray()
  @ArrayMaxSize(MOST_TAGS)
  @IsText(LONGEST_TAG, { each: true })
  tags?: string[];

  @ApiPropertyOptional({ example: 'open' })
  @IfNamed()
  @IsIn(STATUSES)
  status?: string;
}
