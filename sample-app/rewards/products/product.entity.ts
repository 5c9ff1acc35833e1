import { Column, Entity, PrimaryColumn } from 'typeorm';

/** Something that can be ordered, in fixed denominations. */
@Entity('products')
export class Product {
  @PrimaryColumn('integer')
  id!: number;

  @Column('text')
  name!: string;

  /** In whole units of the currency. */
  @Column('integer', { array: true })
  denominations!: number[];
}
