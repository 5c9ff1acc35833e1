import ts from 'typescript';

/** Declarations of packages and of the language, which every program reads and no test changes. */
const declarations = new Map<string, ts.SourceFile | undefined>();

/** What the compiler says of these files, under the settings of this repository. */
export function typeErrors(files: readonly string[]): string[] {
  const { config } = ts.readConfigFile('tsconfig.json', (path) => ts.sys.readFile(path)) as {
    config: object;
  };
  const { options } = ts.parseJsonConfigFileContent(
    { ...config, include: [], files: [] },
    ts.sys,
    process.cwd(),
  );
  const program = ts.createProgram([...files], { ...options, noEmit: true }, compilerHost(options));
  // Of these files alone: what they import is checked with the repository.
  const found = files.flatMap((file) => ts.getPreEmitDiagnostics(program, program.getSourceFile(file)));
  return found.map(({ file, messageText }) => {
    return `${file?.fileName ?? ''}: ${ts.flattenDiagnosticMessageText(messageText, '\n')}`;
  });
}

/** The compiler's own, but that a declaration is parsed once for all programs of the same settings. */
export function compilerHost(options: ts.CompilerOptions): ts.CompilerHost {
  const host = ts.createCompilerHost(options);
  const parse = host.getSourceFile.bind(host);
  const settings = JSON.stringify([options.lib, options.types, options.module, options.target]);
  host.getSourceFile = (name, how, ...others) => {
    if (!name.endsWith('.d.ts')) return parse(name, how, ...others);
    const key = `${settings} ${name} ${JSON.stringify(how)}`;
    if (!declarations.has(key)) declarations.set(key, parse(name, how, ...others));
    return declarations.get(key);
  };
  return host;
}
