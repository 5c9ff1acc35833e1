import { Column, CreateDateColumn, Entity, Index, PrimaryGeneratedColumn } from 'typeorm';

/** Money that was taken. */
@Entity('charges')
@Index('charges_owner_ref_idx', ['owner', 'ref'])
export class Charge {
  @PrimaryGeneratedColumn('uuid')
  id!: string;

  /** Id of the client, or what stands for everybody who sends no credentials. */
  @Column('text')
  owner!: string;

  /** In cents. */
  @Column('integer')
  amount!: number;

  @Column('text')
  ref!: string;

  @Column('text')
  status!: 'succeeded';

  @CreateDateColumn({ name: 'created_at', type: 'timestamptz' })
  createdAt!: Date;
}
