import type { DataSource } from 'typeorm';
import type { IsolationLevel } from '../../core/store.js';
import type { BegunTransaction, JoinedTransaction, JoinHost, Pool } from '../port.js';
import { joinDataSource } from './data-source.js';
import { TypeOrmTransaction } from './transaction.js';

/** The part of TypeORM's PostgreSQL driver that holds the pool. */
interface PostgresPoolDriver {
  readonly master: Pool;
}

/** Lets what goes through one DataSource join: repositories, managers, builders, and transactions nested in the handler's. */
export class TypeOrmHost implements JoinHost {
  /** The driver's own, which a DataSource that is initialised again makes anew. */
  readonly pool: Pool = {
    connect: (callback) => {
      const { master } = this.dataSource.driver as unknown as PostgresPoolDriver;
      master.connect(callback);
    },
  };

  constructor(private readonly dataSource: DataSource) {}

  get isolation(): IsolationLevel | undefined {
    const { isolationLevel } = this.dataSource.options as {
      isolationLevel?: IsolationLevel | 'READ UNCOMMITTED';
    };
    // PostgreSQL has no READ UNCOMMITTED: it treats it as this.
    return isolationLevel === 'READ UNCOMMITTED' ? 'READ COMMITTED' : isolationLevel;
  }

  get schema(): string | undefined {
    return (this.dataSource.options as { schema?: string }).schema;
  }

  get handle(): unknown {
    return this.dataSource.manager;
  }

  join(): () => void {
    return joinDataSource(this.dataSource);
  }

  open(begun: BegunTransaction): JoinedTransaction {
    return new TypeOrmTransaction(this.dataSource, begun);
  }

  nest<T>(work: (handle: never) => Promise<T>): Promise<T> {
    return this.dataSource.transaction(work as () => Promise<T>);
  }
}
