import { existsSync } from 'node:fs';
import { chromium, type Browser } from 'playwright-core';

/** Where Debian's package has it, and others after it. */
const PLACES = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];

/** The browser that tests drive: that of CHROMIUM, or one of the system's. Undefined where there is none. */
export function findBrowser(): string | undefined {
  return process.env['CHROMIUM'] ?? PLACES.find((place) => existsSync(place));
}

/** Starts a real browser without a window. Nothing but loopback is reached by it. */
export async function startBrowser(executablePath: string): Promise<Browser> {
  // Its sandbox refuses to run as root, as tests do in containers; the pages are our own.
  return chromium.launch({
    executablePath,
    args: ['--no-sandbox', '--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1'],
  });
}
