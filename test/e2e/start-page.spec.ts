import { once } from 'node:events';
import { request, type IncomingMessage } from 'node:http';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import type { Browser, Page } from 'playwright-core';
import { ADAPTERS } from '../helpers/application.js';
import { findBrowser, startBrowser } from '../helpers/browser.js';
import { startSample, type RunningSample } from './sample.fixture.js';

const executable = findBrowser();

describe.each(ADAPTERS)('what the sample application serves to browsers (%s)', (adapter) => {
  let sample: RunningSample;

  beforeAll(async () => {
    sample = await startSample(adapter);
  });

  afterAll(async () => sample.close());

  it.each(['/', '/start-page/page.js', '/start-page/clients.json', '/docs', '/docs-json', '/charges'])(
    'says how %s may be used',
    async (path) => {
      const { headers } = await sample.call('GET', path);
      expect(headers['content-security-policy']).toContain("default-src 'self'");
      expect(headers).toMatchObject({ 'x-content-type-options': 'nosniff', 'x-frame-options': 'SAMEORIGIN' });
    },
  );

  it.each(['/', '/start-page/page.js', '/start-page/clients.json'])(
    'is %s under the names of this machine alone',
    async (path) => {
      const { port } = new URL(sample.url);
      const hosts = ['127.0.0.1', 'localhost', '[::1]', 'rebound.example', '127.0.0.1.rebound.example'];
      const statuses = hosts.map(async (host) => {
        const asked = request(`${sample.url}${path}`, { headers: { Host: `${host}:${port}` } }).end();
        const [response] = (await once(asked, 'response')) as [IncomingMessage];
        response.resume();
        return response.statusCode;
      });
      expect(await Promise.all(statuses)).toEqual([200, 200, 200, 421, 421]);
    },
  );
});

if (executable === undefined) {
  it('needs a browser, and there is none', () => {
    process.stdout.write('The start page was not tested: install Chromium, or name one with CHROMIUM.\n');
    // In CI it is installed, so that nothing stays untested there.
    expect(process.env['CI']).toBeUndefined();
  });
} else {
  describe.each(ADAPTERS)('start page in a browser (%s)', (adapter) => {
    let sample: RunningSample;
    let browser: Browser;
    let page: Page;
    const complaints: string[] = [];

    beforeAll(async () => {
      sample = await startSample(adapter);
      browser = await startBrowser(executable);
    }, 60_000);

    beforeEach(async () => {
      await sample.database.query('TRUNCATE orders, idempotency_records');
      await sample.database.query(`UPDATE wallets SET balance = '10000.00'`);
      complaints.length = 0;
      page = await browser.newPage({ viewport: { width: 1200, height: 900 } });
      page.on('pageerror', (error) => complaints.push(error.message));
      page.on('requestfailed', (request) => {
        // The one that is lost on purpose.
        if (request.method() === 'GET') complaints.push(`${request.url()} failed`);
      });
      await page.goto(`${sample.url}/`);
      await balanceIs('10000.00 USD');
    });

    afterEach(async () => {
      await page.close();
      expect(complaints).toEqual([]);
    });

    afterAll(async () => {
      await browser.close();
      await sample.close();
    });

    const balanceIs = (text: string): Promise<void> =>
      page.locator('#balance', { hasText: text }).waitFor({ timeout: 20_000 });

    const press = (name: string): Promise<void> => page.getByRole('button', { name, exact: true }).click();

    /** Kinds of the requests in the list, the oldest first. */
    const kinds = async (count: number): Promise<(string | null)[]> => {
      await page.locator(`#log tr:nth-child(${count})`).waitFor({ timeout: 20_000 });
      const rows = await page.locator('#log tr').all();
      return (await Promise.all(rows.map((row) => row.getAttribute('data-kind')))).reverse();
    };

    const orders = async (): Promise<number> => (await sample.database.query('SELECT FROM orders')).length;

    it('places an order', async () => {
      await press('Place order');
      expect(await kinds(1)).toEqual(['first']);
      await balanceIs('9900.00 USD');
      expect(await page.locator('#orders').textContent()).toBe('1');
      expect(await orders()).toBe(1);
    });

    it('a double-click orders once', async () => {
      await press('Double-click');
      expect((await kinds(2)).sort()).toEqual(['first', 'replay']);
      await balanceIs('9900.00 USD');
      expect(await orders()).toBe(1);
      expect(await page.locator('#replays').textContent()).toBe('1');
    });

    it('a retry after a lost response gets it', async () => {
      await press('Lose the response, then retry');
      expect(await kinds(2)).toEqual(['lost', 'replay']);
      await balanceIs('9900.00 USD');
      expect(await orders()).toBe(1);
    });

    it('another body under the same key is refused', async () => {
      await press('Place order');
      await kinds(1);
      await press('Change the body, keep the key');
      expect(await kinds(2)).toEqual(['first', 'refused']);
      expect(await page.locator('#log tr:first-child .answer').textContent()).toContain('422');
      await balanceIs('9900.00 USD');
    });

    it('a new key is a new order, and another client has another wallet', async () => {
      await press('Place order');
      await kinds(1);
      await press('New key');
      await press('Place order');
      expect(await kinds(2)).toEqual(['first', 'first']);
      await balanceIs('9800.00 USD');
      await page.getByLabel('Client').selectOption({ index: 1 });
      await balanceIs('10000.00 USD');
      await press('Place order');
      expect(await kinds(3)).toEqual(['first', 'first', 'first']);
      await balanceIs('9900.00 USD');
    });

    it('fits a telephone', async () => {
      await page.setViewportSize({ width: 390, height: 800 });
      const overflow = await page.evaluate('document.documentElement.scrollWidth - innerWidth');
      expect(overflow).toBeLessThanOrEqual(0);
    });
  });
}
