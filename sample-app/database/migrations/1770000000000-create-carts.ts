import type { MigrationInterface, QueryRunner } from 'typeorm';

/** What clients are about to order. */
export class CreateCarts1770000000000 implements MigrationInterface {
  readonly name = 'CreateCarts1770000000000';

  async up(runner: QueryRunner): Promise<void> {
    await runner.query(`
      CREATE TABLE cart_items (
        client_id    uuid    NOT NULL CONSTRAINT cart_items_client_id_fkey REFERENCES api_clients (id),
        product_id   integer NOT NULL CONSTRAINT cart_items_product_id_fkey REFERENCES products (id),
        denomination integer NOT NULL,
        quantity     integer NOT NULL,
        PRIMARY KEY (client_id, product_id, denomination)
      )`);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query('DROP TABLE cart_items');
  }
}
