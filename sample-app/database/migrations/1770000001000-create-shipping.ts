import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Orders to ship, manifests and labels. */
export class CreateShipping1770000001000 implements MigrationInterface {
  readonly name = 'CreateShipping1770000001000';

  async up(runner: QueryRunner): Promise<void> {
    await runner.query(CREATE_ORDERS);
    await runner.query(CREATE_MANIFESTS);
    await runner.query(CREATE_LABELS);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query('DROP TABLE shipping_labels, shipping_manifests, shipping_orders');
  }
}

const CREATE_ORDERS = `
CREATE TABLE shipping_orders (
  id         uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
  client_id  uuid        NOT NULL CONSTRAINT shipping_orders_client_id_fkey REFERENCES api_clients (id),
  reference  text        NOT NULL,
  items      jsonb       NOT NULL,
  status     text        NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX shipping_orders_client_id_created_at_idx ON shipping_orders (client_id, created_at);`;

const CREATE_MANIFESTS = `
CREATE TABLE shipping_manifests (
  id         uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
  client_id  uuid        NOT NULL CONSTRAINT shipping_manifests_client_id_fkey REFERENCES api_clients (id),
  order_ids  uuid[]      NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);`;

const CREATE_LABELS = `
CREATE TABLE shipping_labels (
  client_id   uuid    NOT NULL CONSTRAINT shipping_labels_client_id_fkey REFERENCES api_clients (id),
  label_id    text    NOT NULL,
  print_count integer NOT NULL,
  PRIMARY KEY (client_id, label_id)
);`;
