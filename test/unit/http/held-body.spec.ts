import { describe, expect, it } from '@jest/globals';
import { StreamableFile } from '@nestjs/common';
import { Readable } from 'node:stream';
import { finished } from 'node:stream/promises';
import { buffer } from 'node:stream/consumers';
import { BodyLostError, holdBody, isStreamedBody, type StreamedBody } from '../../../lib/http/held-body.js';

const bytesOf = (held: StreamedBody): Promise<Buffer> =>
  buffer(held instanceof StreamableFile ? held.getStream() : held);

const lost = async (source: Readable, maxSize: number): Promise<BodyLostError> => {
  const error: unknown = await holdBody(source, maxSize).catch((failure: unknown) => failure);
  if (!(error instanceof BodyLostError)) throw new Error('the body was held');
  return error;
};

describe('a body that is still to be read', () => {
  it.each<[string, unknown, boolean]>([
    ['a file', new StreamableFile(Buffer.from('a')), true],
    ['a stream of bytes', Readable.from(['a'], { objectMode: false }), true],
    ['a stream of objects', Readable.from([{ a: 1 }]), false],
    ['bytes', Buffer.from('a'), false],
    ['nothing', undefined, false],
  ])('is told from what Nest sends as it is: %s', (_what, value, expected) => {
    expect(isStreamedBody(value)).toBe(expected);
  });

  it('is given back with the same bytes, strings among them', async () => {
    const source = Readable.from(['one,', Buffer.from('two,'), new Uint8Array([0xff])]);
    const held = await holdBody(source, 1_000);
    expect(held).toBeInstanceOf(Readable);
    expect(await bytesOf(held)).toEqual(Buffer.from('one,two,\u00ff', 'latin1'));
  });

  it('stays a file of the same type and name', async () => {
    const options = { type: 'text/csv', disposition: 'attachment' };
    const held = await holdBody(new StreamableFile(Readable.from(['a,b']), options), 1_000);
    expect(held).toBeInstanceOf(StreamableFile);
    expect((held as StreamableFile).options).toMatchObject(options);
    expect((await bytesOf(held)).toString()).toBe('a,b');
  });

  it('may have just as many bytes as are kept, and no more', async () => {
    const source = (): Readable => Readable.from(['12', '345']);
    expect((await bytesOf(await holdBody(source(), 5))).length).toBe(5);
    expect(await lost(source(), 4)).toMatchObject({ tooLarge: true, cause: { message: /4 bytes/ } });
  });

  it('is read no further when it is too large', async () => {
    let reads = 0;
    const endless = new Readable({
      highWaterMark: 1,
      read() {
        reads += 1;
        this.push('x');
      },
    });
    expect(await lost(endless, 3)).toMatchObject({ tooLarge: true });
    expect(endless.destroyed).toBe(true);
    expect(reads).toBeLessThan(20);
  });

  it('is lost with its source', async () => {
    const cause = new Error('the source failed');
    const source = new Readable({
      read() {
        this.push('some');
        this.destroy(cause);
      },
    });
    expect(await lost(source, 1_000)).toMatchObject({ name: 'BodyLostError', tooLarge: false, cause });
  });

  it('has ended for whoever waits for its end, although it is never closed', async () => {
    const held = (await holdBody(Readable.from(['one']), 1_000)) as Readable;
    const ended = finished(held);
    held.resume();
    await ended;
    expect(held.readableEnded).toBe(true);
  });

  it('is whole although its reader was destroyed, and says nothing of it', async () => {
    const held = (await holdBody(Readable.from(['one,', 'two']), 1_000)) as Readable;
    const events: string[] = [];
    held.on('close', () => events.push('close')).on('error', () => events.push('error'));
    expect(held.destroy(new Error('the client has gone'))).toBe(held);
    expect(held.destroyed).toBe(false);
    expect((await bytesOf(held)).toString()).toBe('one,two');
    await new Promise(setImmediate);
    expect(events).toEqual([]);
  });
});
