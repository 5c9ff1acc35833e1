#!/usr/bin/env node
import { parseArgs } from 'node:util';
import { idempotencyDdl, type MigrationTarget } from './ddl.js';

const USAGE = `Usage: nestjs-pg-idempotency ddl [--schema <name>] [--table <name>] [--down]

Prints the SQL that creates the table of idempotency records, or with --down the SQL that drops it.
`;

function main(args: string[]): number {
  try {
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: {
        schema: { type: 'string' },
        table: { type: 'string' },
        down: { type: 'boolean', default: false },
        help: { type: 'boolean', short: 'h', default: false },
      },
    });
    if (values.help) return print(process.stdout, USAGE, 0);
    if (positionals.length !== 1 || positionals[0] !== 'ddl') return print(process.stderr, USAGE, 2);
    const target: MigrationTarget = { schema: values.schema, table: values.table };
    const { up, down } = idempotencyDdl(target);
    return print(process.stdout, values.down ? down : up, 0);
  } catch (error) {
    return print(process.stderr, `${error instanceof Error ? error.message : String(error)}\n\n${USAGE}`, 2);
  }
}

function print(stream: NodeJS.WriteStream, text: string, exitCode: number): number {
  stream.write(text);
  return exitCode;
}

process.exitCode = main(process.argv.slice(2));
