import { describe, expect, it } from '@jest/globals';
import { idempotencyDdl } from '../../../migrations/index.js';
import { partitionedDdl } from '../../helpers/partitions.js';

describe('the DDL of a partitioned table', () => {
  it('changes nothing but how the table is stored', () => {
    const { up } = idempotencyDdl();
    const partitioned = partitionedDdl(up);
    expect(partitioned.match(/PARTITION BY HASH \(key, client, endpoint\)/g)).toHaveLength(1);
    expect(partitioned.match(/PARTITION OF/g)).toHaveLength(4);
    expect(partitioned.match(/CREATE INDEX/g)).toEqual(up.match(/CREATE INDEX/g));
  });

  it('is found behind parentheses, quotes and storage parameters', () => {
    const ddl = `CREATE TABLE "t" (\n  a text CHECK (a IN ('(', ')')),\n  "b)" int\n) WITH (fillfactor = 90);\nREST;\n`;
    const partitioned = partitionedDdl(ddl);
    expect(partitioned).toContain('"b)" int\n) PARTITION BY HASH (key, client, endpoint);\nREST;\n');
    expect(partitioned).toContain(
      'CREATE TABLE "t_3" PARTITION OF "t" FOR VALUES WITH (MODULUS 4, REMAINDER 3) WITH (fillfactor = 90);\n',
    );
  });
});
