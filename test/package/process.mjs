// Child processes for the smoke test.
import { spawn } from 'node:child_process';
import { once } from 'node:events';

// When this test itself runs under `npx -p`, that choice of packages is not meant for what it starts.
delete process.env['npm_config_package'];

/** Runs a command to its end and returns what it printed; its failure shows everything it said. */
export async function run(command, args, options = {}) {
  const child = spawn(command, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
  const output = { stdout: '', stderr: '' };
  collect(child.stdout, (text) => (output.stdout += text));
  collect(child.stderr, (text) => (output.stderr += text));
  const [code, signal] = await once(child, 'close');
  if (code !== 0) {
    const what = [command, ...args].join(' ');
    throw new Error(`${what} ended with ${code ?? signal}\n${output.stdout}\n${output.stderr}`);
  }
  return output.stdout;
}

/** Starts a server that prints "listening on <port>"; `stop` asks it to end and waits until it did. */
export async function serve(args, options) {
  const child = spawn(process.execPath, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
  const closed = once(child, 'close');
  let output = '';
  const port = await new Promise((resolve, reject) => {
    const read = (text) => {
      output += text;
      const match = /listening on (\d+)/.exec(output);
      if (match) {
        resolve(Number(match[1]));
      }
    };
    collect(child.stdout, read);
    collect(child.stderr, read);
    void closed.then(([code]) => reject(new Error(`The application ended with ${code}\n${output}`)));
  });
  return {
    url: `http://127.0.0.1:${port}`,
    output: () => output,
    async stop() {
      child.kill('SIGTERM');
      const [code, signal] = await closed;
      if (code !== 0 && signal !== 'SIGTERM') {
        throw new Error(`The application ended with ${code ?? signal}\n${output}`);
      }
    },
  };
}

function collect(stream, sink) {
  stream.setEncoding('utf8');
  stream.on('data', sink);
}
