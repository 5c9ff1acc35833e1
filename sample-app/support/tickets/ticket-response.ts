import type { Ticket } from './ticket.entity.js';

/** A ticket as clients see it. */
export interface TicketResponse {
  readonly id: string;
  readonly title: string;
  readonly priority: string;
  readonly tags: readonly string[];
  readonly status: string;
  /** ISO 8601. */
  readonly createdAt: string;
}

/** Shows a ticket to its client. */
export function ticketResponse({ id, title, priority, tags, status, createdAt }: Ticket): TicketResponse {
  return { id, title, priority, tags, status, createdAt: createdAt.toISOString() };
}
