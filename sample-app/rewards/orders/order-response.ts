import type { Order } from './order.entity.js';

/** An order as clients see it. */
export interface OrderResponse {
  readonly id: string;
  readonly product_id: number;
  readonly denomination: number;
  readonly quantity: number;
  /** With two decimals, such as `500.00`. */
  readonly total: string;
  readonly status: string;
  /** ISO 8601. */
  readonly created_at: string;
}

/** Shows an order to its client. */
export function orderResponse(order: Order): OrderResponse {
  const { id, denomination, quantity, total, status } = order;
  const created_at = order.createdAt.toISOString();
  return { id, product_id: order.productId, denomination, quantity, total, status, created_at };
}
