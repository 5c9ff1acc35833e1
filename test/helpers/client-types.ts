import { join } from 'node:path';
import ts from 'typescript';
import { compilerHost } from './type-check.js';

/** What the compiler says of a program that uses the client's sources, for a platform of these libraries and packages. */
export function typeErrorsOfConsumer(
  source: string,
  { lib, types }: { readonly lib: readonly string[]; readonly types: readonly string[] },
): string[] {
  const root = process.cwd();
  const file = join(root, 'consumer.ts');
  const { options } = ts.convertCompilerOptionsFromJson(
    {
      lib,
      types,
      target: 'ES2022',
      module: 'ESNext',
      moduleResolution: 'Bundler',
      strict: true,
      noUncheckedIndexedAccess: true,
      // The client's sources are no declarations, and those of the platform are checked elsewhere.
      skipLibCheck: true,
      noEmit: true,
      paths: { 'nestjs-pg-idempotency/client': ['./lib/client/index.ts'] },
    },
    root,
  );
  const host = compilerHost(options);
  const { getSourceFile, fileExists } = host;
  host.fileExists = (name) => name === file || fileExists(name);
  host.getSourceFile = (name, ...rest) =>
    name === file ? ts.createSourceFile(name, source, rest[0]) : getSourceFile(name, ...rest);
  const program = ts.createProgram([file], options, host);
  const inClient = program.getSourceFiles().filter(({ fileName }) => fileName.includes('/lib/client/'));
  if (inClient.length < 10) throw new Error("the client's sources are not part of the program");
  return ts.getPreEmitDiagnostics(program).map(({ file: at, messageText }) => {
    return `${at?.fileName.slice(root.length + 1) ?? ''}: ${ts.flattenDiagnosticMessageText(messageText, '\n')}`;
  });
}
