// Checks that every dependency named in package-lock.json has an entry there.
//
// npm can write a lockfile that names platform packages without listing them, and `npm ci` on another
// machine then installs less than it should, or refuses. With `--peers-elsewhere`, peers need none: those of the benchmarks'
// packages are in the repository's own node_modules.
import { readFile } from 'node:fs/promises';
import { argv, exit } from 'node:process';

const file = argv[2] ?? 'package-lock.json';
const peersElsewhere = argv[3] === '--peers-elsewhere';
const { packages } = JSON.parse(await readFile(file, 'utf8'));

const missing = Object.entries(packages).flatMap(([location, entry]) =>
  namedDependencies(location, entry)
    .filter((name) => !isListed(location, name))
    .map((name) => `${name} (needed by ${location === '' ? 'the package itself' : location})`),
);

if (missing.length > 0) {
  console.error(`${file} has no entry for:\n${missing.map((line) => `  ${line}`).join('\n')}`);
  exit(1);
}
console.log(`${file}: ${Object.keys(packages).length} entries, every named dependency is among them`);

function namedDependencies(location, entry) {
  const optionalPeers = entry.peerDependenciesMeta ?? {};
  const peers = peersElsewhere ? {} : (entry.peerDependencies ?? {});
  return [
    ...Object.keys(entry.dependencies ?? {}),
    ...Object.keys(entry.optionalDependencies ?? {}),
    ...Object.keys(location === '' ? (entry.devDependencies ?? {}) : {}),
    ...Object.keys(peers).filter((name) => !optionalPeers[name]?.optional),
  ];
}

/** Looks where Node.js would: in the package's own node_modules, then in those of the folders above it. */
function isListed(location, name) {
  for (let folder = location; ; folder = parentPackage(folder)) {
    const candidate = folder === '' ? `node_modules/${name}` : `${folder}/node_modules/${name}`;
    if (candidate in packages) {
      return true;
    }
    if (folder === '') {
      return false;
    }
  }
}

function parentPackage(location) {
  const end = location.lastIndexOf('node_modules/');
  return end <= 0 ? '' : location.slice(0, end - 1);
}
