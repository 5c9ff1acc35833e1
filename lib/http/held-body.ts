import { StreamableFile } from '@nestjs/common';
import { Readable } from 'node:stream';

/** A handler's value that is still to be read. */
export type StreamedBody = StreamableFile | Readable;

/** Whether a handler's value is a body that is still to be read. */
export function isStreamedBody(value: unknown): value is StreamedBody {
  return value instanceof StreamableFile || (value instanceof Readable && !value.readableObjectMode);
}

/**
 * Reads a streamed body to its end and gives back the same kind of value over the bytes in memory.
 *
 * It is read here, inside the handler's transaction, for three reasons: what the source reads from the database
 * belongs to it, a source that fails does so while everything can still be rolled back, and a client that goes away
 * makes the framework destroy the source half-way although the operation takes effect.
 *
 * @throws BodyLostError as soon as the body exceeds `maxSize` bytes, or when its source fails.
 */
export async function holdBody(value: StreamedBody, maxSize: number): Promise<StreamedBody> {
  const chunks = await drain(value instanceof StreamableFile ? value.getStream() : value, maxSize);
  const bytes = new BodyInMemory(chunks);
  return value instanceof StreamableFile ? new StreamableFile(bytes, value.options) : bytes;
}

/** The handler returned, but its body cannot be had: its source failed, or it is larger than is recorded. */
export class BodyLostError extends Error {
  override readonly name = 'BodyLostError';

  constructor(
    readonly tooLarge: boolean,
    cause: unknown,
  ) {
    super('the body of the response could not be read', { cause });
  }
}

async function drain(source: Readable, maxSize: number): Promise<Buffer[]> {
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of source as AsyncIterable<string | Uint8Array>) {
      const bytes = Buffer.from(chunk as Uint8Array);
      size += bytes.length;
      if (size > maxSize) break;
      chunks.push(bytes);
    }
  } catch (error) {
    throw new BodyLostError(false, error);
  }
  if (size > maxSize) throw new BodyLostError(true, new Error(`the body exceeds ${maxSize} bytes`));
  return chunks;
}

/** Nothing is gained by destroying bytes in memory, and the response would lack its end. */
class BodyInMemory extends Readable {
  constructor(private readonly chunks: Buffer[]) {
    // Who waits for its end must not wait for it to be closed.
    super({ emitClose: false });
  }

  override _read(): void {
    this.push(this.chunks.shift() ?? null);
  }

  override destroy(): this {
    return this;
  }
}
