/** How many partitions the records table of the pass `partitioned` has. */
const PARTITIONS = 4;

/**
 * The DDL of the records table, as a team writes it that partitions the table: by the hash of the
 * identity. The columns, the constraints and the indexes stay as they are.
 */
export function partitionedDdl(ddl: string): string {
  const [create, name] = /CREATE TABLE ("(?:[^"]|"")+") \(/.exec(ddl) ?? [];
  if (create === undefined || name === undefined) throw new Error('The DDL creates no table');
  const columns = ddl.indexOf(create) + create.length - 1;
  const end = columns + lengthOfParentheses(ddl.slice(columns));
  // A partitioned table stores nothing, and takes no storage parameters: its partitions do.
  const storage = /^\s*WITH \([^)]*\)/.exec(ddl.slice(end))?.[0] ?? '';
  const partitioned = `${ddl.slice(0, end)} PARTITION BY HASH (key, client, endpoint)${ddl.slice(end + storage.length)}`;
  const partitions = Array.from({ length: PARTITIONS }, (_, remainder) => {
    const partition = `${name.slice(0, -1)}_${remainder}"`;
    const values = `WITH (MODULUS ${PARTITIONS}, REMAINDER ${remainder})`;
    return `CREATE TABLE ${partition} PARTITION OF ${name} FOR VALUES ${values}${storage};\n`;
  });
  return partitioned + partitions.join('');
}

/** Of the text in parentheses that this text begins with; those in quotes do not count. */
function lengthOfParentheses(text: string): number {
  let depth = 0;
  for (const { 0: token, index } of text.matchAll(/'[^']*'|"[^"]*"|[()]/g)) {
    if (token === '(') depth += 1;
    else if (token === ')' && --depth === 0) return index + 1;
  }
  throw new Error('The parentheses do not match');
}
