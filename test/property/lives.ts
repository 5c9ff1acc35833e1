import type { TestDatabase } from '../helpers/database.js';

/*
 * A life of an identity begins when nothing is recorded for it, and ends when its record expires or
 * is deleted. The database itself keeps the accounts, in the transactions that change a record.
 */

const SCHEMA = `
CREATE TABLE notes (text text);
CREATE TABLE lives (key text PRIMARY KEY, life integer NOT NULL DEFAULT 1);
CREATE TABLE effects (id text PRIMARY KEY, key text, life integer, mode text, attempt integer, claimed timestamptz);
CREATE TABLE completions (body text, key text, life integer, at timestamptz DEFAULT clock_timestamp());
CREATE TABLE deletions (key text);
CREATE TABLE violations (what text, key text, details text);

CREATE FUNCTION note_record() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP <> 'INSERT' AND OLD.status <> 'processing' AND OLD.expires_at > clock_timestamp() THEN
    IF TG_OP = 'DELETE' OR NEW.expires_at <= clock_timestamp() THEN
      UPDATE lives SET life = life + 1 WHERE key = OLD.key;
      IF TG_OP = 'DELETE' THEN INSERT INTO deletions VALUES (OLD.key); END IF;
    ELSIF (NEW.status, NEW.response_body) IS DISTINCT FROM (OLD.status, OLD.response_body) THEN
      INSERT INTO violations VALUES ('an answer changed while it lived', OLD.key, OLD.status || ' -> ' || NEW.status);
    END IF;
  ELSIF TG_OP = 'UPDATE' AND OLD.locked_until > clock_timestamp() AND OLD.expires_at > clock_timestamp()
        AND (NEW.attempt > OLD.attempt OR position('settled'::bytea IN NEW.response_body) > 0) THEN
    INSERT INTO violations VALUES ('a lease was taken away while it was held', OLD.key, NEW.status);
  ELSIF TG_OP <> 'DELETE' AND NEW.status <> 'processing' AND NEW.expires_at > clock_timestamp() THEN
    INSERT INTO completions (body, key, life)
    SELECT convert_from(NEW.response_body, 'UTF8'), key, life FROM lives WHERE key = NEW.key;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER note_record AFTER INSERT OR UPDATE OR DELETE ON idempotency_records
  FOR EACH ROW EXECUTE FUNCTION note_record();

CREATE FUNCTION note_fenced() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM idempotency_records
                  WHERE key = NEW.key AND status = 'processing' AND attempt = NEW.attempt
                    AND created_at >= NEW.claimed AND created_at < NEW.claimed + interval '1 ms') THEN
    INSERT INTO violations VALUES ('a stale owner commits in a fenced transaction', NEW.key, NEW.id);
  END IF;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER note_fenced AFTER INSERT ON effects DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW WHEN (NEW.mode = 'lease') EXECUTE FUNCTION note_fenced()`;

/** What must not be there at any time. */
const VIOLATIONS = `
SELECT what, key, details FROM violations
UNION ALL
SELECT 'two effects in one life', key, string_agg(id, ', ') FROM effects WHERE mode = 'transaction'
 GROUP BY key, life HAVING count(*) > 1
UNION ALL
SELECT 'two answers in one life', key, string_agg(body, ', ') FROM completions
 GROUP BY key, life HAVING count(*) > 1`;

/** The accounts that the database keeps of its identities. */
export class Lives {
  private constructor(private readonly database: TestDatabase) {}

  static async create(database: TestDatabase, keys: readonly string[]): Promise<Lives> {
    await database.query(SCHEMA);
    await database.query('INSERT INTO lives (key) SELECT unnest($1::text[])', [keys]);
    return new Lives(database);
  }

  async current(key: string): Promise<number> {
    const [row] = await this.database.query<{ life: number }>('SELECT life FROM lives WHERE key = $1', [key]);
    return row!.life;
  }

  /** The life in which this answer was recorded. */
  async ofAnswer(body: string): Promise<number | undefined> {
    const [row] = await this.database.query<{ life: number }>(
      'SELECT life FROM completions WHERE body = $1',
      [body],
    );
    return row?.life;
  }

  /** The answer of the current life. */
  async answer(key: string): Promise<string | null | undefined> {
    const [row] = await this.database.query<{ body: string | null }>(
      'SELECT body FROM completions JOIN lives USING (key, life) WHERE key = $1',
      [key],
    );
    return row?.body;
  }

  async effects(): Promise<Set<string>> {
    const rows = await this.database.query<{ id: string }>('SELECT id FROM effects');
    return new Set(rows.map(({ id }) => id));
  }

  /** Records that were deleted before they expired. */
  async deleted(): Promise<number> {
    return (await this.database.query('SELECT FROM deletions')).length;
  }

  async violations(): Promise<string[]> {
    const rows = await this.database.query<{ what: string; key: string; details: string }>(VIOLATIONS);
    return rows.map(({ what, key, details }) => `${what}: ${key}, ${details}`);
  }

  /** Makes the record expire, or an attempt of which its owner has said that the outcome is unknown. */
  expire(key: string): Promise<unknown[]> {
    return this.database.query(
      `UPDATE idempotency_records SET expires_at = clock_timestamp() - interval '1 second'
        WHERE key = $1 AND expires_at > clock_timestamp()
          AND (status <> 'processing' OR (locked_until <= clock_timestamp() AND owner_token IS NULL))
       RETURNING 1`,
      [key],
    );
  }

  /** Makes a lease lapse whose owner believes that it holds it. */
  lapse(key: string): Promise<unknown[]> {
    return this.database.query(
      `UPDATE idempotency_records SET locked_until = clock_timestamp() - interval '1 second'
        WHERE key = $1 AND status = 'processing' AND locked_until > clock_timestamp()
       RETURNING 1`,
      [key],
    );
  }
}
