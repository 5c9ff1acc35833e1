import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { transform, type Options } from '@swc/core';
import { chromium, type Browser } from 'playwright-core';

const SOURCES = new URL('../../lib/client/', import.meta.url);
const MODULE = /^\/client\/([\w-]+)\.js$/;
const COMPILER: Options = {
  swcrc: false,
  module: { type: 'es6' },
  jsc: { target: 'es2022', parser: { syntax: 'typescript' } },
};
const PAGE = `<!doctype html><title>Client</title>
<script type="module">
  import * as client from '/client/index.js';
  globalThis.client = client;
</script>`;

/** A name that browsers of {@link startBrowserWithNames} find on this machine, and do not trust as they trust localhost. */
const PLAIN_NAME = 'page.example';

/** A web site whose only page imports the client, module by module, and keeps it as the global `client`. */
export interface ClientSite {
  /** Where browsers have all that they have on `https:`. */
  readonly secureUrl: string;
  /** The same site on plain `http:` under a name of its own. */
  readonly plainUrl: string;
  close(): Promise<void>;
}

/** Starts a {@link ClientSite}. */
export async function startClientSite(): Promise<ClientSite> {
  const server = createServer((request, response) => {
    const [, name] = MODULE.exec(request.url ?? '') ?? [];
    if (name === undefined) {
      response.setHeader('Content-Type', 'text/html').end(PAGE);
      return;
    }
    compiled(name).then(
      (code) => response.setHeader('Content-Type', 'text/javascript').end(code),
      () => response.writeHead(404).end(),
    );
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    secureUrl: `http://127.0.0.1:${port}/`,
    plainUrl: `http://${PLAIN_NAME}:${port}/`,
    close: async () => {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

/** The types are stripped, and that is all: a browser gets what was written. */
async function compiled(name: string): Promise<string> {
  const source = await readFile(new URL(`${name}.ts`, SOURCES), 'utf8');
  const { code } = await transform(source, COMPILER);
  return code;
}

/** Starts a real browser without a window, for which the name of the plain site leads to loopback, and nothing else anywhere. */
export async function startBrowserWithNames(executablePath: string): Promise<Browser> {
  const names = `MAP ${PLAIN_NAME} 127.0.0.1 , MAP * ~NOTFOUND , EXCLUDE 127.0.0.1`;
  // Its sandbox refuses to run as root, as tests do in containers; the pages are our own.
  return chromium.launch({ executablePath, args: ['--no-sandbox', `--host-resolver-rules=${names}`] });
}
