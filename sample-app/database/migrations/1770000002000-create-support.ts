import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Tickets and their messages. */
export class CreateSupport1770000002000 implements MigrationInterface {
  readonly name = 'CreateSupport1770000002000';

  async up(runner: QueryRunner): Promise<void> {
    await runner.query(CREATE_TICKETS);
    await runner.query(CREATE_MESSAGES);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query('DROP TABLE ticket_messages, tickets');
  }
}

const CREATE_TICKETS = `
CREATE TABLE tickets (
  id         uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
  client_id  uuid        NOT NULL CONSTRAINT tickets_client_id_fkey REFERENCES api_clients (id),
  title      text        NOT NULL,
  priority   text        NOT NULL,
  tags       text[]      NOT NULL,
  status     text        NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX tickets_client_id_created_at_idx ON tickets (client_id, created_at);`;

const CREATE_MESSAGES = `
CREATE TABLE ticket_messages (
  id         uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
  ticket_id  uuid        NOT NULL CONSTRAINT ticket_messages_ticket_id_fkey REFERENCES tickets (id),
  body       text        NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ticket_messages_ticket_id_created_at_idx ON ticket_messages (ticket_id, created_at);`;
