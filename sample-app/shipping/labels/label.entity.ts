import { Column, Entity, ForeignKey, PrimaryColumn } from 'typeorm';
import { ApiClient } from '../../auth/api-client.entity.js';

/** A client's label, by the number that the client gave it. */
@Entity('shipping_labels')
export class Label {
  @PrimaryColumn('uuid', { name: 'client_id' })
  @ForeignKey(() => ApiClient, { name: 'shipping_labels_client_id_fkey' })
  clientId!: string;

  @PrimaryColumn('text', { name: 'label_id' })
  labelId!: string;

  /** How often it was printed. */
  @Column('integer', { name: 'print_count' })
  printCount!: number;
}
