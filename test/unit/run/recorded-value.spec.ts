import { describe, expect, it } from '@jest/globals';
import { recordedValue, valueOf, type Recorded } from '../../../lib/run/recorded-value.js';

/** Whether two types are the same, each as the other is. */
type Same<A, B> = [A] extends [B] ? ([B] extends [A] ? true : false) : false;

class Entity {
  id!: number;
  createdAt!: Date;
  deletedAt?: Date;
  parent!: Entity | undefined;
  rename(name: string): string {
    return name;
  }
}
type Plain<T> = { [Name in keyof T]: T[Name] };

describe('the type of a recorded value', () => {
  it('is what JSON leaves of it', () => {
    // Checked by the compiler: none of these is true unless the types are the same.
    const checks: [
      Same<Recorded<string>, string>,
      Same<Recorded<'a' | 1 | null>, 'a' | 1 | null>,
      Same<Recorded<undefined>, undefined>,
      Same<Recorded<string | undefined>, string | undefined>,
      Same<Recorded<Date>, string>,
      Same<Recorded<bigint>, never>,
      Same<Recorded<() => void>, never>,
      Same<Recorded<Date[]>, string[]>,
      Same<Recorded<readonly [Date, undefined]>, [string, null]>,
      Same<Recorded<unknown>, unknown>,
      Same<Plain<Recorded<{ a: Date; b: () => void; c: undefined }>>, { a: string }>,
      Same<Plain<Recorded<{ readonly a: Date; b?: number }>>, { a: string; b?: number }>,
      Same<Plain<Recorded<{ a: unknown; b: Date | undefined }>>, { a: unknown; b?: string }>,
      Same<Recorded<Entity>['createdAt'], string>,
      Same<Recorded<Entity>['deletedAt'], string | undefined>,
      Same<keyof Recorded<Entity>, 'id' | 'createdAt' | 'deletedAt' | 'parent'>,
      Same<Recorded<{ toJSON(): { at: Date } }>['at'], string>,
    ] = [
      true,
      true,
      true,
      true,
      true,
      true,
      true,
      true,
      true,
      true,
      true,
      true,
      true,
      true,
      true,
      true,
      true,
    ];
    expect(checks).not.toContain(false);
    // What returns nothing gives nothing.
    const nothing = (value: Recorded<void>): void => value;
    expect(nothing).toBeDefined();
  });
});

describe('a recorded value', () => {
  it('has the bytes of its JSON', () => {
    const { status, headers, body } = recordedValue({ name: 'ä', at: new Date(0), gone: undefined }, 100);
    expect({ status, headers, body: body.toString() }).toEqual({
      status: 200,
      headers: [['content-type', 'application/json; charset=utf-8']],
      body: '{"name":"ä","at":"1970-01-01T00:00:00.000Z"}',
    });
  });

  it('is nothing where nothing was returned', () => {
    const recorded = recordedValue(undefined, 1);
    expect(recorded).toEqual({ status: 204, headers: [], body: Buffer.alloc(0) });
    expect(valueOf(recorded)).toBeUndefined();
  });

  it('may have just as many bytes as are allowed', () => {
    expect(recordedValue('ä', 4).body).toHaveLength(4);
    expect(() => recordedValue('ä', 3)).toThrow('IDEMPOTENCY_RESPONSE_TOO_LARGE');
  });

  it('keeps what a toJSON throws as the cause', () => {
    const cause = new Error('no JSON of this');
    const value = {
      toJSON: () => {
        throw cause;
      },
    };
    expect(() => recordedValue(value, 100)).toThrow(
      expect.objectContaining({ code: 'IDEMPOTENCY_VALUE_NOT_RECORDABLE', cause }),
    );
  });

  it('counts by its body where somebody else recorded it, and must be JSON', () => {
    const settled = (body: string): unknown => valueOf({ status: 409, headers: [], body: Buffer.from(body) });
    expect(settled('{"id":1}')).toEqual({ id: 1 });
    expect(() => settled('<id>1</id>')).toThrow(
      expect.objectContaining({ code: 'IDEMPOTENCY_VALUE_UNREADABLE' }),
    );
  });
});
