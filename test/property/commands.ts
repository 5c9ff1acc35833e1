import type { AsyncCommand } from 'fast-check';
import type { Hold } from './application.js';
import {
  isExpired,
  onExpire,
  onKill,
  onLapse,
  onPurge,
  onRelease,
  onRequest,
  onRequestsAtOnce,
  onSettle,
  UNHEARD_OF,
  type Account,
  type Identity,
  type Request,
  type Settlement,
} from './model.js';
import { identityName, Violation, type Manner, type Side, type World } from './world.js';

/** Kills of one run: each costs the start of a process. */
const MOST_KILLS = 1;

/** The accounts of all identities, as they should be. */
export class Model {
  readonly accounts = new Map<string, Account>();
  kills = 0;

  of(identity: Identity): Account {
    return this.accounts.get(identityName(identity)) ?? UNHEARD_OF;
  }

  set(identity: Identity, account: Account): void {
    this.accounts.set(identityName(identity), account);
  }

  /** Does the same to all accounts. */
  every(change: (account: Account) => Account): void {
    for (const [name, account] of this.accounts) this.accounts.set(name, change(account));
  }
}

/** Something that is done to the model and to the world alike; then the whole world is held against the whole model. */
abstract class Step implements AsyncCommand<Model, World> {
  /** By which it is counted. */
  abstract readonly kind: Kind;
  abstract check(model: Readonly<Model>): boolean;
  protected abstract act(model: Model, world: World): Promise<void>;
  abstract toString(): string;

  async run(model: Model, world: World): Promise<void> {
    await this.act(model, world);
    await world.look(model.accounts);
    world.count(this.kind);
  }
}

/** The request on record, where there is one. */
function requestOf(model: Readonly<Model>, identity: Identity): Request | undefined {
  const { record } = model.of(identity);
  return record.is === 'absent' ? undefined : record.request;
}

async function sendOne(
  model: Model,
  world: World,
  identity: Identity,
  request: Request,
  manner: Manner,
): Promise<void> {
  const course = onRequest(model.of(identity), identity.endpoint, request);
  const response = await world.send(identity, request, manner);
  model.set(identity, world.judge(identity, [course], [response]));
}

/** A request with a key that is not taken: never used, released, or expired. */
export class Send extends Step {
  readonly kind = 'send';

  constructor(
    readonly identity: Identity,
    readonly request: Request,
    readonly manner: Manner,
  ) {
    super();
  }

  check(model: Readonly<Model>): boolean {
    const { record } = model.of(this.identity);
    return record.is === 'absent' || record.expired;
  }

  protected act(model: Model, world: World): Promise<void> {
    return sendOne(model, world, this.identity, this.request, this.manner);
  }

  toString(): string {
    return `send ${identityName(this.identity)} ${asText(this.request)}${asText(this.manner)}`;
  }
}

/** The request that is on record, again. */
export class Duplicate extends Step {
  readonly kind = 'duplicate';

  constructor(
    readonly identity: Identity,
    readonly manner: Manner,
  ) {
    super();
  }

  check(model: Readonly<Model>): boolean {
    return requestOf(model, this.identity) !== undefined;
  }

  protected act(model: Model, world: World): Promise<void> {
    return sendOne(model, world, this.identity, requestOf(model, this.identity)!, this.manner);
  }

  toString(): string {
    return `duplicate ${identityName(this.identity)}${asText(this.manner)}`;
  }
}

/** The same request several times at once, at both instances: the one on record, or a first one. */
export class DuplicatesAtOnce extends Step {
  readonly kind = 'duplicates at once';

  constructor(
    readonly identity: Identity,
    readonly first: Request,
    readonly sides: readonly Side[],
  ) {
    super();
  }

  check(): boolean {
    return true;
  }

  protected async act(model: Model, world: World): Promise<void> {
    const { identity, sides } = this;
    const request = requestOf(model, identity) ?? this.first;
    const courses = onRequestsAtOnce(model.of(identity), identity.endpoint, request, sides.length);
    const responses = await Promise.all(sides.map((side) => world.send(identity, request, { side })));
    model.set(identity, world.judge(identity, courses, responses));
  }

  toString(): string {
    return `at once ${identityName(this.identity)} at ${this.sides.join()} ${asText(this.first)}`;
  }
}

/** Parts of a request, any of which makes it another one. */
export const PARTS = ['thing', 'query', 'says', 'status', 'headers'] as const;

/** Another request with the key of the one on record. */
export class ChangedRequest extends Step {
  readonly kind = 'changed request';

  constructor(
    readonly identity: Identity,
    readonly part: (typeof PARTS)[number],
    readonly manner: Manner,
  ) {
    super();
  }

  check(model: Readonly<Model>): boolean {
    return requestOf(model, this.identity) !== undefined && !isExpired(model.of(this.identity).record);
  }

  protected act(model: Model, world: World): Promise<void> {
    const request = changed(requestOf(model, this.identity)!, this.part);
    return sendOne(model, world, this.identity, request, this.manner);
  }

  toString(): string {
    return `changed ${this.part} ${identityName(this.identity)}${asText(this.manner)}`;
  }
}

function changed(request: Request, part: (typeof PARTS)[number]): Request {
  const { script } = request;
  switch (part) {
    case 'thing':
      return { ...request, thing: `${request.thing}-changed` };
    case 'query':
      return { ...request, query: '?changed' };
    case 'says':
      return { ...request, script: { ...script, says: { json: { before: script.says } } } };
    case 'status':
      return { ...request, script: { ...script, status: script.status + 1 } };
    case 'headers':
      return { ...request, script: { ...script, headers: [...script.headers, 'location'] } };
  }
}

/** The request on record with its key, by another client or to another endpoint: it has nothing to do with the record. */
export class SameKeyElsewhere extends Step {
  constructor(
    readonly kind: 'other client' | 'other endpoint',
    readonly identity: Identity,
    readonly elsewhere: Identity,
    readonly manner: Manner,
  ) {
    super();
  }

  check(model: Readonly<Model>): boolean {
    return requestOf(model, this.identity) !== undefined;
  }

  protected act(model: Model, world: World): Promise<void> {
    return sendOne(model, world, this.elsewhere, requestOf(model, this.identity)!, this.manner);
  }

  toString(): string {
    return `${this.kind} ${identityName(this.elsewhere)} as ${identityName(this.identity)}${asText(this.manner)}`;
  }
}

/** A record's time to live is over. */
export class Expire extends Step {
  readonly kind = 'expire';

  constructor(readonly identity: Identity) {
    super();
  }

  check(model: Readonly<Model>): boolean {
    return onExpire(model.of(this.identity)) !== undefined;
  }

  protected async act(model: Model, world: World): Promise<void> {
    await world.expire(this.identity);
    model.set(this.identity, onExpire(model.of(this.identity))!);
  }

  toString(): string {
    return `expire ${identityName(this.identity)}`;
  }
}

/** The purge deletes what has expired, and says how much that was. */
export class Purge extends Step {
  readonly kind = 'purge';

  check(): boolean {
    return true;
  }

  protected async act(model: Model, world: World): Promise<void> {
    const expired = [...model.accounts.values()].filter(({ record }) => isExpired(record)).length;
    expectResult(await world.operate({ operation: 'purge' }), expired, 'purge');
    model.every(onPurge);
    world.count('purged', expired);
  }

  toString(): string {
    return 'purge';
  }
}

/** The process dies while its handler is at work. */
export class Kill extends Step {
  readonly kind = 'kill';

  constructor(
    readonly identity: Identity,
    readonly first: Request,
    readonly place: Hold,
    readonly side: Side,
  ) {
    super();
  }

  check(model: Readonly<Model>): boolean {
    return model.kills < MOST_KILLS && this.#next(model) !== undefined;
  }

  protected async act(model: Model, world: World): Promise<void> {
    const next = this.#next(model)!;
    await world.kill(this.identity, this.#request(model), this.side, this.place);
    model.set(this.identity, next);
    model.kills++;
  }

  #request(model: Readonly<Model>): Request {
    const request = requestOf(model, this.identity) ?? this.first;
    // Handlers that release their key have nothing to write, and no place to be held at.
    return request.script.ending === 'releases' ? { ...request, script: this.first.script } : request;
  }

  #next(model: Readonly<Model>): Account | undefined {
    const hasWritten = this.place === 'after the write';
    return onKill(model.of(this.identity), this.identity.endpoint, this.#request(model), hasWritten);
  }

  toString(): string {
    return `kill ${this.side} ${identityName(this.identity)} ${this.place} ${asText(this.first)}`;
  }
}

/** The leases of dead owners come to their end. */
export class Lapse extends Step {
  readonly kind = 'lapse';

  check(model: Readonly<Model>): boolean {
    return [...model.accounts.values()].some(({ record }) => record.is === 'held');
  }

  protected async act(model: Model, world: World): Promise<void> {
    await world.lapse();
    model.every(onLapse);
  }

  toString(): string {
    return 'lapse';
  }
}

/** An operator deletes a record. */
export class Release extends Step {
  readonly kind = 'release';

  constructor(readonly identity: Identity) {
    super();
  }

  check(): boolean {
    return true;
  }

  protected async act(model: Model, world: World): Promise<void> {
    const { result, next } = onRelease(model.of(this.identity));
    expectResult(
      await world.operate({ operation: 'release', identity: this.identity }),
      result,
      String(this),
    );
    model.set(this.identity, next);
    world.count(`release: ${result}`);
  }

  toString(): string {
    return `release ${identityName(this.identity)}`;
  }
}

/** An operator records how an attempt ended. */
export class Settle extends Step {
  readonly kind = 'settle';

  constructor(
    readonly identity: Identity,
    readonly settlement: Settlement,
  ) {
    super();
  }

  check(): boolean {
    return true;
  }

  protected async act(model: Model, world: World): Promise<void> {
    const { identity, settlement } = this;
    const { result, next } = onSettle(model.of(identity), settlement);
    expectResult(await world.operate({ operation: 'settle', identity, settlement }), result, String(this));
    model.set(identity, next);
    world.count(`settle: ${result}`);
  }

  toString(): string {
    return `settle ${identityName(this.identity)} ${asText(this.settlement)}`;
  }
}

function expectResult(is: unknown, should: unknown, operation: string): void {
  if (is !== should) throw new Violation(`${operation}: ${String(is)}, and not ${String(should)}`);
}

function asText(value: object): string {
  return ` ${JSON.stringify(value)}`;
}

/** Every kind of step. */
export const KINDS = [
  'send',
  'duplicate',
  'duplicates at once',
  'changed request',
  'other client',
  'other endpoint',
  'expire',
  'purge',
  'kill',
  'lapse',
  'release',
  'settle',
] as const;

export type Kind = (typeof KINDS)[number];
