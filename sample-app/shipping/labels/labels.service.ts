import { Injectable } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import { Repository } from 'typeorm';
import { Label } from './label.entity.js';

/** Prints labels. */
@Injectable()
export class LabelsService {
  constructor(@InjectRepository(Label) private readonly labels: Repository<Label>) {}

  /** Prints a label, which is created by its first print, and says how often it was printed by now. */
  async print(clientId: string, labelId: string): Promise<number> {
    const [row] = await this.labels.query<{ print_count: number }[]>(PRINT, [clientId, labelId]);
    if (!row) throw new Error('PostgreSQL returned no row for a label that it has written');
    return row.print_count;
  }
}

const PRINT = `
INSERT INTO shipping_labels AS label (client_id, label_id, print_count) VALUES ($1, $2, 1)
ON CONFLICT (client_id, label_id) DO UPDATE SET print_count = label.print_count + 1
RETURNING print_count`;
