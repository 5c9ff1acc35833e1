import { describe, expect, it } from '@jest/globals';
import { Flights, type Flight, type WaitEnd } from '../../../lib/core/flights.js';

const IDENTITY = { client: 'c', endpoint: 'e', key: 'k' };
const LONG = 60_000;

/** How waiting ends, whether that is known at once or later. */
async function endOf(flights: Flights, flight?: Flight): Promise<WaitEnd> {
  return flights.wait(LONG, flight);
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
    const elsewhere = flights.wait(LONG, other);
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
    expect(await flights.wait(1, flight)).toEqual({ kind: 'timeout' });
    expect(await flights.wait(0, flight)).toEqual({ kind: 'timeout' });
    expect(await flights.wait(-1)).toEqual({ kind: 'timeout' });
  });

  it('refuses one more than may wait, and has room again when one has gone', async () => {
    const flights = new Flights(2);
    const flight = flights.begin(IDENTITY, 1_000);
    const short = flights.wait(1, flight);
    const long = flights.wait(LONG);
    expect(await flights.wait(LONG, flight)).toEqual({ kind: 'refused' });
    await short;
    const again = flights.wait(LONG, flight);
    flight.land({ kind: 'open' });
    expect(await again).toEqual({ kind: 'open' });
    flights.close();
    await long;
  });

  it('refuses everybody where nobody may wait', async () => {
    expect(await new Flights(0).wait(LONG)).toEqual({ kind: 'refused' });
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
