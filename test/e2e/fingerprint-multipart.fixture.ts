import {
  Body,
  ConflictException,
  Controller,
  Injectable,
  ParseIntPipe,
  Post,
  Res,
  StreamableFile,
  UploadedFile,
  UploadedFiles,
  UseInterceptors,
  type CallHandler,
  type ExecutionContext,
  type NestInterceptor,
} from '@nestjs/common';
import {
  AnyFilesInterceptor,
  FileFieldsInterceptor,
  FileInterceptor,
  FilesInterceptor,
  NoFilesInterceptor,
} from '@nestjs/platform-express';
import { InjectRepository } from '@nestjs/typeorm';
import { Idempotent } from 'nestjs-pg-idempotency';
import { mkdtempSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  concatMap,
  finalize,
  from,
  lastValueFrom,
  map,
  merge,
  Observable,
  of,
  Subject,
  take,
  throwError,
} from 'rxjs';
import { Repository } from 'typeorm';
import { Order } from '../helpers/shop.js';

/** Where the uploads of the routes go that keep them on disk. */
export const FOLDER = mkdtempSync(join(tmpdir(), 'uploads-'));

/** The part of Express' response that is used. */
interface Response {
  status(code: number): Response;
  setHeader(name: string, value: string): Response;
  json(body: object): void;
}

/** What happened around the handlers. */
export const seen = { runs: 0, entered: 0, mapped: 0, left: 0 };

/** Emits when the interceptor of `impatient` shall wait no longer. */
export const impatience = new Subject<void>();
/** What the handlers of `held` wait for. */
export const gate: { promise: Promise<unknown> } = { promise: Promise.resolve() };

/** Keeps the length of a file, and nothing of its content. */
const forgetful = {
  _handleFile(
    _request: unknown,
    uploaded: Express.Multer.File,
    callback: (error: unknown, info: object) => void,
  ): void {
    let size = 0;
    uploaded.stream.on('data', (chunk: Buffer) => (size += chunk.length));
    uploaded.stream.on('end', () => callback(null, { size, path: `remote://bucket/${size}` }));
  },
  _removeFile: (_request: unknown, _file: unknown, callback: (error: null) => void): void => callback(null),
};

/** Sets a header before the handler, and after it writes, and changes what it returned. */
@Injectable()
class Surrounding implements NestInterceptor {
  constructor(@InjectRepository(Order) private readonly orders: Repository<Order>) {}

  intercept(context: ExecutionContext, next: CallHandler): Observable<unknown> {
    seen.entered += 1;
    context.switchToHttp().getResponse<Response>().setHeader('X-Surrounded', `by run ${seen.runs}`);
    return next.handle().pipe(
      concatMap((value) => {
        seen.mapped += 1;
        return from(this.orders.save({ item: 'audit', price: 0 })).pipe(map(() => ({ wrapped: value })));
      }),
    );
  }
}

/** Writes when it has waited for the handler, in the asynchronous context of before. */
@Injectable()
class Awaiting implements NestInterceptor {
  constructor(@InjectRepository(Order) private readonly orders: Repository<Order>) {}

  async intercept(_context: ExecutionContext, next: CallHandler): Promise<Observable<unknown>> {
    const value: unknown = await lastValueFrom(next.handle());
    await this.orders.save({ item: 'audit', price: 0 });
    seen.mapped += 1;
    return of(value);
  }
}

/** Gives up when it is told, and counts the requests that are done. */
@Injectable()
class Impatient implements NestInterceptor {
  intercept(_context: ExecutionContext, next: CallHandler): Observable<unknown> {
    const late = impatience.pipe(concatMap(() => throwError(() => new ConflictException('too slow'))));
    return merge(next.handle(), late).pipe(
      take(1),
      finalize(() => (seen.left += 1)),
    );
  }
}

/** Removes what multer stored, whatever became of the request: what a handler keeps, it moves. */
@Injectable()
class RemoveUploads implements NestInterceptor {
  intercept(context: ExecutionContext, next: CallHandler): Observable<unknown> {
    const request = context.switchToHttp().getRequest<{ file?: { path: string } }>();
    return next.handle().pipe(
      finalize(() => {
        if (request.file) void rm(request.file.path, { force: true });
        seen.left += 1;
      }),
    );
  }
}

@Controller()
export class UploadsController {
  constructor(@InjectRepository(Order) private readonly orders: Repository<Order>) {}

  @Post('keyed')
  @Idempotent({ key: { body: 'orderKey', minLength: 8 } })
  @UseInterceptors(FileInterceptor('file'))
  keyed(@Body() body: object, @UploadedFile() file?: Express.Multer.File): Promise<object> {
    return this.#save(body, [file]);
  }

  @Post('found')
  @Idempotent({
    key: { from: ({ body }: { body: { orderKey?: string } }) => body.orderKey, required: false },
  })
  @UseInterceptors(FileInterceptor('file'))
  found(@Body() body: object, @UploadedFile() file?: Express.Multer.File): Promise<object> {
    return this.#save(body, [file]);
  }

  @Post('after')
  @Idempotent()
  @UseInterceptors(FileInterceptor('file'))
  after(@Body() body: object, @UploadedFile() file?: Express.Multer.File): Promise<object> {
    return this.#save(body, [file]);
  }

  @Post('before')
  @UseInterceptors(FileInterceptor('file'))
  @Idempotent()
  before(@Body() body: object, @UploadedFile() file?: Express.Multer.File): Promise<object> {
    return this.#save(body, [file]);
  }

  @Post('list')
  @Idempotent()
  @UseInterceptors(FilesInterceptor('file'))
  list(@Body() body: object, @UploadedFiles() files: Express.Multer.File[]): Promise<object> {
    return this.#save(body, files);
  }

  @Post('named')
  @Idempotent()
  @UseInterceptors(FileFieldsInterceptor([{ name: 'file' }, { name: 'other' }]))
  named(
    @Body() body: object,
    @UploadedFiles() files: Record<string, Express.Multer.File[]>,
  ): Promise<object> {
    return this.#save(body, Object.values(files).flat());
  }

  @Post('any')
  @Idempotent()
  @UseInterceptors(AnyFilesInterceptor())
  any(@Body() body: object, @UploadedFiles() files: Express.Multer.File[]): Promise<object> {
    return this.#save(body, files);
  }

  @Post('fields-only')
  @Idempotent()
  @UseInterceptors(NoFilesInterceptor())
  fieldsOnly(@Body() body: object): Promise<object> {
    return this.#save(body, []);
  }

  @Post('disk')
  @Idempotent()
  @UseInterceptors(FileInterceptor('file', { dest: FOLDER }))
  disk(@Body() body: object, @UploadedFile() file: Express.Multer.File): Promise<object> {
    return this.#save(body, [file]);
  }

  @Post('disk-removed')
  @Idempotent()
  @UseInterceptors(RemoveUploads, FileInterceptor('file', { dest: FOLDER }))
  diskRemoved(@Body() body: object, @UploadedFile() file: Express.Multer.File): Promise<object> {
    return this.#save(body, [file]);
  }

  @Post('elsewhere')
  @Idempotent()
  @UseInterceptors(FileInterceptor('file', { storage: forgetful }))
  elsewhere(@Body() body: object, @UploadedFile() file: Express.Multer.File): Promise<object> {
    return this.#save(body, [file]);
  }

  @Post('computed')
  @Idempotent({
    fingerprint: {
      body: ({ file }: { file: Express.Multer.File }) => `${file.originalname}:${file.size}`,
    },
  })
  @UseInterceptors(FileInterceptor('file', { storage: forgetful }))
  computed(@Body() body: object, @UploadedFile() file: Express.Multer.File): Promise<object> {
    return this.#save(body, [file]);
  }

  @Post('excluded')
  @Idempotent({ fingerprint: { exclude: ['meta.sentAt', 'thumbnail'] } })
  @UseInterceptors(AnyFilesInterceptor())
  excluded(@Body() body: object, @UploadedFiles() files: Express.Multer.File[]): Promise<object> {
    return this.#save(body, files);
  }

  @Post('limited')
  @Idempotent()
  @UseInterceptors(FileInterceptor('file', { limits: { fileSize: 10 } }))
  limited(@Body() body: object, @UploadedFile() file: Express.Multer.File): Promise<object> {
    return this.#save(body, [file]);
  }

  @Post('piped')
  @Idempotent()
  @UseInterceptors(FileInterceptor('file'))
  piped(
    @Body('amount', ParseIntPipe) amount: number,
    @UploadedFile() file: Express.Multer.File,
  ): Promise<object> {
    return this.#save({ amount }, [file]);
  }

  @Post('surrounded')
  @Idempotent()
  @UseInterceptors(Surrounding, FileInterceptor('file'))
  surrounded(@Body() body: object, @UploadedFile() file: Express.Multer.File): Promise<object> {
    return this.#save(body, [file]);
  }

  @Post('awaited')
  @Idempotent()
  @UseInterceptors(Awaiting, FileInterceptor('file'))
  awaited(@Body() body: object, @UploadedFile() file: Express.Multer.File): Promise<object> {
    return this.#save(body, [file]);
  }

  @Post('impatient')
  @Idempotent()
  @UseInterceptors(Impatient, FileInterceptor('file'))
  impatient(@Body() body: object, @UploadedFile() file: Express.Multer.File): Promise<object> {
    return this.#save(body, [file]);
  }

  @Post('response')
  @Idempotent()
  @UseInterceptors(FileInterceptor('file'))
  async response(@UploadedFile() file: Express.Multer.File, @Res() response: Response): Promise<void> {
    const saved = await this.#save({}, [file]);
    response.status(202).setHeader('X-Own', 'yes').json(saved);
  }

  @Post('streamed')
  @Idempotent()
  @UseInterceptors(FileInterceptor('file'))
  async streamed(@UploadedFile() file: Express.Multer.File): Promise<StreamableFile> {
    await this.#save({}, [file]);
    return new StreamableFile(Buffer.from(`${seen.runs}: ${file.size}`), { type: 'text/csv' });
  }

  @Post('observed')
  @Idempotent()
  @UseInterceptors(FileInterceptor('file'))
  observed(@UploadedFile() file: Express.Multer.File): Observable<object> {
    return from(this.#save({}, [file])).pipe(concatMap((saved) => of(saved)));
  }

  @Post('refused')
  @Idempotent()
  @UseInterceptors(FileInterceptor('file'))
  async refused(@UploadedFile() file: Express.Multer.File): Promise<void> {
    await this.#save({}, [file]);
    throw new ConflictException(`no more of ${file.originalname}, run ${seen.runs}`);
  }

  @Post('broken')
  @Idempotent()
  @UseInterceptors(FileInterceptor('file'))
  async broken(@UploadedFile() file: Express.Multer.File): Promise<object> {
    const saved = await this.#save({}, [file]);
    if (seen.runs === 1) throw new Error('out of order');
    return saved;
  }

  @Post('held')
  @Idempotent()
  @UseInterceptors(FileInterceptor('file'))
  async held(@Body() body: object, @UploadedFile() file: Express.Multer.File): Promise<object> {
    const saved = await this.#save(body, [file]);
    await gate.promise;
    return saved;
  }

  @Post('hanging')
  @Idempotent({ maxDuration: 250 })
  @UseInterceptors(FileInterceptor('file'))
  async hanging(@Body() body: object, @UploadedFile() file: Express.Multer.File): Promise<object> {
    const saved = await this.#save(body, [file]);
    await gate.promise;
    return saved;
  }

  @Post('lease')
  @Idempotent({ mode: 'lease' })
  @UseInterceptors(FileInterceptor('file'))
  lease(@Body() body: object, @UploadedFile() file: Express.Multer.File): Promise<object> {
    return this.#save(body, [file]);
  }

  @Post('optional')
  @Idempotent({ key: { required: false } })
  @UseInterceptors(FileInterceptor('file'))
  optional(@Body() body: object, @UploadedFile() file: Express.Multer.File): Promise<object> {
    return this.#save(body, [file]);
  }

  @Post('optional-field')
  @Idempotent({ key: { body: 'orderKey', required: false } })
  @UseInterceptors(AnyFilesInterceptor())
  optionalField(@Body() body: object, @UploadedFiles() files: Express.Multer.File[]): Promise<object> {
    return this.#save(body, files);
  }

  @Post('optional-streamed')
  @Idempotent({ key: { body: 'orderKey', required: false }, response: { maxSize: 10 } })
  @UseInterceptors(AnyFilesInterceptor())
  async optionalStreamed(@UploadedFiles() files: Express.Multer.File[]): Promise<StreamableFile> {
    await this.#save({}, files);
    return new StreamableFile(Buffer.alloc(1000, 'x'));
  }

  async #save(body: object, files: readonly (Express.Multer.File | undefined)[]): Promise<object> {
    seen.runs += 1;
    const item = files.map((file) => file?.originalname ?? 'nothing').join();
    const { id } = await this.orders.save({ item, price: seen.runs });
    return { id, body, sizes: files.map((file) => file?.size ?? 0) };
  }
}

/** The upload interceptor of a controller stands before that of its methods. */
@Controller('shared')
@UseInterceptors(FileInterceptor('file'))
@Idempotent()
export class SharedUploadController {
  constructor(@InjectRepository(Order) private readonly orders: Repository<Order>) {}

  @Post()
  async run(@UploadedFile() file: Express.Multer.File): Promise<Order> {
    seen.runs += 1;
    return this.orders.save({ item: file.originalname, price: seen.runs });
  }
}

/** Without an upload interceptor: what a middleware did not read, nobody reads. */
@Controller('read-before')
export class ReadBeforeController {
  constructor(@InjectRepository(Order) private readonly orders: Repository<Order>) {}

  @Post(':how')
  @Idempotent()
  @UseInterceptors(Surrounding)
  async run(@UploadedFiles() files: Express.Multer.File[]): Promise<Order> {
    seen.runs += 1;
    return this.orders.save({ item: files.map(({ originalname }) => originalname).join(), price: seen.runs });
  }
}
