/** What a payment provider reports, as far as it is read here. */
export interface PaymentEvent {
  /** The same on each delivery. */
  readonly id: string;
  /** Such as `charge.dispute.created`. */
  readonly type: string;
  readonly data?: { readonly object?: { readonly id?: string } };
}

/** Events that somebody has to look after, with what is written on the ticket. */
const TROUBLE: Readonly<Record<string, string>> = {
  'charge.dispute.created': 'Disputed charge',
  'charge.failed': 'Failed charge',
  'invoice.payment_failed': 'Unpaid invoice',
  'payment_intent.payment_failed': 'Failed payment',
};

/** Title of the ticket that an event asks for, or undefined when it asks for none. */
export function ticketTitle({ type, data }: PaymentEvent): string | undefined {
  const trouble = Object.hasOwn(TROUBLE, type) ? TROUBLE[type] : undefined;
  return trouble === undefined ? undefined : `${trouble}: ${data?.object?.id ?? 'unknown'}`;
}
