import { Column, Entity, PrimaryGeneratedColumn, Unique } from 'typeorm';

/** A party that calls the API. */
@Entity('api_clients')
@Unique('api_clients_api_key_key', ['apiKey'])
export class ApiClient {
  @PrimaryGeneratedColumn('uuid')
  id!: string;

  @Column('text')
  name!: string;

  @Column('text', { name: 'api_key' })
  apiKey!: string;

  @Column('bytea', { name: 'secret_sha256' })
  secretSha256!: Buffer;
}
