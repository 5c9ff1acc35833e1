import { Injectable } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import { Repository } from 'typeorm';
import { Charge } from './charge.entity.js';

/** Takes money. */
@Injectable()
export class ChargesService {
  constructor(@InjectRepository(Charge) private readonly charges: Repository<Charge>) {}

  async create(owner: string, amount: number, ref: string): Promise<Charge> {
    return this.charges.save(this.charges.create({ owner, amount, ref, status: 'succeeded' }));
  }

  /** What was charged, oldest first; under one reference where one is given. */
  async list(owner: string, ref: string | undefined): Promise<Charge[]> {
    const where = ref === undefined ? { owner } : { owner, ref };
    return this.charges.find({ where, order: { createdAt: 'ASC', id: 'ASC' } });
  }
}
