import { ArrayMaxSize, IsArray, IsIn, IsNotEmpty, IsOptional, IsString, MaxLength } from 'class-validator';

/** Urgency of a ticket, least first. */
const PRIORITIES = ['low', 'normal', 'medium', 'high', 'urgent'];
const STATUSES = ['open', 'pending', 'closed'];
const LONGEST_TITLE = 500;
const MOST_TAGS = 50;

/** Body of `POST /tickets`. */
export class CreateTicketDto {
  @IsString()
  @IsNotEmpty()
  @MaxLength(LONGEST_TITLE)
  title!: string;

  /** Default: `normal`. */
  @IsOptional()
  @IsIn(PRIORITIES)
  priority?: string;

  /** Default: none. */
  @IsOptional()
  @IsArray()
  @ArrayMaxSize(MOST_TAGS)
  @IsString({ each: true })
  tags?: string[];
}

/** Body of `PATCH /tickets/{id}`: what is named is changed. */
export class UpdateTicketDto {
  @IsOptional()
  @IsString()
  @IsNotEmpty()
  @MaxLength(LONGEST_TITLE)
  title?: string;

  @IsOptional()
  @IsIn(PRIORITIES)
  priority?: string;

  @IsOptional()
  @IsArray()
  @ArrayMaxSize(MOST_TAGS)
  @IsString({ each: true })
  tags?: string[];

  @IsOptional()
  @IsIn(STATUSES)
  status?: string;
}
