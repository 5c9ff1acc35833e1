import type { MigrationInterface, QueryRunner } from 'typeorm';

/** Clients, and what they order from and are paid out of. */
export class CreateRewards1767312000000 implements MigrationInterface {
  readonly name = 'CreateRewards1767312000000';

  async up(runner: QueryRunner): Promise<void> {
    await runner.query(CREATE_CLIENTS);
    await runner.query(CREATE_PRODUCTS);
    await runner.query(CREATE_ORDERS);
    await runner.query(CREATE_PAYOUTS);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query('DROP TABLE payouts, orders, products, wallets, api_clients');
  }
}

const CREATE_CLIENTS = `
CREATE TABLE api_clients (
  id            uuid  PRIMARY KEY DEFAULT gen_random_uuid(),
  name          text  NOT NULL,
  api_key       text  NOT NULL UNIQUE,
  secret_sha256 bytea NOT NULL
);
CREATE TABLE wallets (
  client_id uuid          PRIMARY KEY CONSTRAINT wallets_client_id_fkey REFERENCES api_clients (id),
  balance   numeric(12,2) NOT NULL CONSTRAINT wallets_balance_check CHECK (balance >= 0),
  currency  text          NOT NULL
);`;

const CREATE_PRODUCTS = `
CREATE TABLE products (
  id            integer   PRIMARY KEY,
  name          text      NOT NULL,
  denominations integer[] NOT NULL
);`;

const CREATE_ORDERS = `
CREATE TABLE orders (
  id           uuid          PRIMARY KEY DEFAULT gen_random_uuid(),
  client_id    uuid          NOT NULL CONSTRAINT orders_client_id_fkey REFERENCES api_clients (id),
  product_id   integer       NOT NULL CONSTRAINT orders_product_id_fkey REFERENCES products (id),
  denomination integer       NOT NULL,
  quantity     integer       NOT NULL,
  total        numeric(12,2) NOT NULL,
  status       text          NOT NULL,
  created_at   timestamptz   NOT NULL DEFAULT now()
);
CREATE INDEX orders_client_id_created_at_idx ON orders (client_id, created_at);`;

const CREATE_PAYOUTS = `
CREATE TABLE payouts (
  id         uuid          PRIMARY KEY DEFAULT gen_random_uuid(),
  client_id  uuid          NOT NULL CONSTRAINT payouts_client_id_fkey REFERENCES api_clients (id),
  amount     numeric(12,2) NOT NULL,
  status     text          NOT NULL,
  created_at timestamptz   NOT NULL DEFAULT now()
);`;
