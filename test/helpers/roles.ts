import { asAdmin } from './admin.js';
import type { TestDatabase } from './database.js';

/** A role of one test file's own. */
export interface TestRole {
  readonly name: string;
  /** Connection string of the database as this role, past PgBouncer. */
  readonly url: string;
  /** To be called when the database is gone, and with it everything that the role had there. */
  drop(): Promise<void>;
}

const PASSWORD = 'of-a-test';

/** Creates a role that may log in and nothing else. Its name is unique on the server. */
export async function createRole(database: TestDatabase, name: string): Promise<TestRole> {
  const role = `${database.name}_${name}`;
  await database.query(`CREATE ROLE "${role}" LOGIN PASSWORD '${PASSWORD}'`);
  const url = new URL(database.directUrl);
  url.username = role;
  url.password = PASSWORD;
  return {
    name: role,
    url: url.href,
    drop: () =>
      asAdmin(async (admin) => {
        await admin.query(`DROP ROLE IF EXISTS "${role}"`);
      }),
  };
}
