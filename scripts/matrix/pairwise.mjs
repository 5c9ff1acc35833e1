/**
 * Few combinations of the factors' values in which every two values of different factors meet at least once.
 *
 * Greedy: each row begins with a pair that has not met yet, and every other factor takes the value that meets most of
 * the new. The same factors give the same rows.
 *
 * @param {Record<string, readonly string[]>} factors
 * @returns {Record<string, string>[]}
 */
export function pairwise(factors) {
  const names = Object.keys(factors);
  const unmet = allPairs(factors);
  const rows = [];
  while (unmet.size > 0) {
    const [first] = unmet.values();
    const row = { ...first };
    for (const name of names) row[name] ??= bestValue(name, factors[name], row, unmet);
    for (const pair of pairsOf(row)) unmet.delete(keyOf(pair));
    rows.push(Object.fromEntries(names.map((name) => [name, row[name]])));
  }
  return rows;
}

function bestValue(name, values, row, unmet) {
  const newPairs = (value) => pairsOf({ ...row, [name]: value }).filter((pair) => unmet.has(keyOf(pair)));
  return values.reduce((best, value) => (newPairs(value).length > newPairs(best).length ? value : best));
}

function allPairs(factors) {
  const names = Object.keys(factors);
  const pairs = names.flatMap((one, index) =>
    names
      .slice(index + 1)
      .flatMap((other) => factors[one].flatMap((a) => factors[other].map((b) => ({ [one]: a, [other]: b })))),
  );
  return new Map(pairs.map((pair) => [keyOf(pair), pair]));
}

function pairsOf(row) {
  const entries = Object.entries(row).sort();
  return entries.flatMap((one, index) =>
    entries.slice(index + 1).map((other) => Object.fromEntries([one, other])),
  );
}

function keyOf(pair) {
  return JSON.stringify(Object.fromEntries(Object.entries(pair).sort()));
}
