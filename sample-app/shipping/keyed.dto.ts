import { Allow } from 'class-validator';

/** A body with a key. Its rules are those of the route, and were checked before the body is. */
export class KeyedDto {
  @Allow()
  idempotencyKey?: string;
}
