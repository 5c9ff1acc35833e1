import { describe, expect, it } from '@jest/globals';
import { Flights, type Flight, type WaitEnd } from '../../../lib/core/flights.js';

const IDENTITY = { client: 'c', endpoint: 'e', key: 'k' };
const LONG = 60_000;
const WAITER = { client: 'c' };

/** How waiting ends, whether that is known at once or later. */
async function endOf(flights: Flights, flight?: Flight): Promise<WaitEnd> {
  return flights.wait(WAITER, LONG, flight);
}

describe('Flights', () => {
  it('finds the flight of an identity until it lands', () => {
    const flights = new Flights(10);
    const flight = flights.begin(IDENTITY, 1_000);
    expect(flights.find({ ...IDENTITY })).toBe(flight);
    flight.land({ kind: 'open' });
    expect(flights.find(IDENTITY)).toBeUndefined();
  });

  it('tells apart identities whose parts are equal only when glued together', () => {
    const flights = new Flights(10);
    flights.begin({ client: 'a', endpoint: 'b,c', key: 'd' }, 1_000);
    for (const other of [
      { client: 'a,b', endpoint: 'c', key: 'd' },
      { client: 'a', endpoint: 'b', key: 'c,d' },
      { client: 'a","b', endpoint: 'c', key: 'd' },
    ]) {
      expect(flights.find(other)).toBeUndefined();
    }
  });

  it('tells everybody who waits how a flight ended, and others nothing', async () => {
    const flights = new Flights(10);
    const [flight, other] = [flights.begin(IDENTITY, 1_000), flights.begin({ ...IDENTITY, key: 'l' }, 1_000)];
    const waiting = [endOf(flights, flight), endOf(flights, flight)];
    const elsewhere = flights.wait(WAITER, LONG, other);
    flight.land({ kind: 'open' });
    expect(await Promise.all(waiting)).toEqual([{ kind: 'open' }, { kind: 'open' }]);
    expect(await Promise.race([elsewhere, Promise.resolve('waits')])).toBe('waits');
    other.land({ kind: 'open' });
    await elsewhere;
  });

  it('does not let an old flight end its successor', () => {
    const flights = new Flights(10);
    const old = flights.begin(IDENTITY, 1_000);
    old.land({ kind: 'open' });
    const successor = flights.begin(IDENTITY, 1_000);
    old.land({ kind: 'open' });
    expect(flights.find(IDENTITY)).toBe(successor);
  });

  it('ends waiting when the time is up, and at once when there is none', async () => {
    const flights = new Flights(10);
    const flight = flights.begin(IDENTITY, 1_000);
    expect(await flights.wait(WAITER, 1, flight)).toEqual({ kind: 'timeout' });
    expect(await flights.wait(WAITER, 0, flight)).toEqual({ kind: 'timeout' });
    expect(await flights.wait(WAITER, -1)).toEqual({ kind: 'timeout' });
  });

  it('refuses one more than may wait, and has room again when one has gone', async () => {
    const flights = new Flights(2);
    const flight = flights.begin(IDENTITY, 1_000);
    const short = flights.wait(WAITER, 1, flight);
    const long = flights.wait(WAITER, LONG);
    expect(await flights.wait(WAITER, LONG, flight)).toEqual({ kind: 'refused' });
    await short;
    const again = flights.wait(WAITER, LONG, flight);
    flight.land({ kind: 'open' });
    expect(await again).toEqual({ kind: 'open' });
    flights.close();
    await long;
  });

  it('is fair: of the client that has the most waiting, one is sent away for another’s', async () => {
    const flights = new Flights(4);
    const flight = flights.begin(IDENTITY, 1_000);
    const wait = async (client: string): Promise<WaitEnd> => flights.wait({ client }, LONG, flight);
    const greedy = [1, 2, 3, 4].map(() => wait('greedy'));
    expect(await wait('greedy')).toEqual({ kind: 'refused' });
    const modest = [wait('modest'), wait('modest')];
    expect(await wait('modest')).toEqual({ kind: 'refused' });
    flight.land({ kind: 'open' });
    const kinds = (ends: WaitEnd[]): string[] => ends.map(({ kind }) => kind);
    expect(kinds(await Promise.all(modest))).toEqual(['open', 'open']);
    expect(kinds(await Promise.all(greedy)).sort()).toEqual(['open', 'open', 'refused', 'refused']);
  });

  it('has room again when those who wait have gone away, and leaves nothing of them behind', async () => {
    const flights = new Flights(1);
    const flight = flights.begin(IDENTITY, 1_000);
    const departures = new Set<() => void>();
    const onDeparture = (leave: () => void): (() => boolean) => {
      departures.add(leave);
      return () => departures.delete(leave);
    };
    const waiting = flights.wait({ client: 'c', onDeparture }, LONG, flight);
    for (const leave of departures) leave();
    expect(await waiting).toEqual({ kind: 'refused' });
    const next = flights.wait({ client: 'c', onDeparture }, LONG, flight);
    flight.land({ kind: 'open' });
    expect(await next).toEqual({ kind: 'open' });
    expect(departures.size).toBe(0);
  });

  it('refuses everybody where nobody may wait', async () => {
    expect(await new Flights(0).wait(WAITER, LONG)).toEqual({ kind: 'refused' });
  });

  it('sends away who waits when it closes, and who comes later', async () => {
    const flights = new Flights(10);
    const flight = flights.begin(IDENTITY, 1_000);
    const waiting = [endOf(flights, flight), endOf(flights)];
    flights.close();
    waiting.push(endOf(flights, flight), endOf(flights));
    expect(await Promise.all(waiting)).toEqual(Array(4).fill({ kind: 'shutdown' }));
    expect(flights.closed).toBe(true);
  });

  it('has landed when no flight is open, those included that began meanwhile', async () => {
    const flights = new Flights(10);
    const first = flights.begin(IDENTITY, 1_000);
    let hasLanded = false;
    const landed = flights.landed().then(() => (hasLanded = true));
    const second = flights.begin({ ...IDENTITY, key: 'l' }, 1_000);
    first.land({ kind: 'open' });
    await new Promise((resolve) => setImmediate(resolve));
    expect(hasLanded).toBe(false);
    second.land({ kind: 'open' });
    await landed;
  });
});
