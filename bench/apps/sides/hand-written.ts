import {
  Body,
  ConflictException,
  Controller,
  Injectable,
  Post,
  UseInterceptors,
  type CallHandler,
  type ExecutionContext,
  type NestInterceptor,
} from '@nestjs/common';
import { InjectRepository, TypeOrmModule } from '@nestjs/typeorm';
import { mergeMap, of, type Observable } from 'rxjs';
import { Column, DataSource, Entity, PrimaryGeneratedColumn, Repository } from 'typeorm';
import { placeOrder, type Order, type PlaceOrder } from '../shop.js';
import type { Side } from '../side.js';

@Entity('handwritten_requests')
class HandwrittenRequest {
  @PrimaryGeneratedColumn('uuid')
  id!: string;

  @Column('text', { unique: true })
  key!: string;

  @Column('text')
  status!: string;

  // `jsonb` would reorder the keys of the replayed body.
  @Column('json', { nullable: true })
  response!: unknown;
}

/**
 * Find, then save before and after: the interceptor of many a blog post. What it does not have is what it costs less: no
 * fingerprint, no atomicity with the handler's writes, no expiry, nothing for a process that dies in the middle.
 */
@Injectable()
class HandwrittenInterceptor implements NestInterceptor {
  constructor(
    @InjectRepository(HandwrittenRequest) private readonly requests: Repository<HandwrittenRequest>,
  ) {}

  async intercept(context: ExecutionContext, next: CallHandler): Promise<Observable<unknown>> {
    const { headers } = context.switchToHttp().getRequest<{ headers: Record<string, string> }>();
    const key = `${headers['x-api-key']}:${headers['idempotency-key']}`;
    const found = await this.requests.findOneBy({ key });
    if (found?.status === 'completed') return of(found.response);
    if (found) throw new ConflictException('The request is being processed');
    const request = await this.requests.save({ key, status: 'processing', response: null });
    return next.handle().pipe(
      mergeMap(async (response: unknown) => {
        await this.requests.save(Object.assign(request, { status: 'completed', response }));
        return response;
      }),
    );
  }
}

@Controller('orders')
class HandwrittenController {
  constructor(private readonly dataSource: DataSource) {}

  @Post()
  @UseInterceptors(HandwrittenInterceptor)
  create(@Body() order: PlaceOrder): Promise<Order> {
    return placeOrder(this.dataSource, order);
  }
}

/** The bare handler under an interceptor of a team's own. */
export const handWritten: Side = () => ({
  imports: [TypeOrmModule.forFeature([HandwrittenRequest])],
  controllers: [HandwrittenController],
  providers: [HandwrittenInterceptor],
  entities: [HandwrittenRequest],
});
