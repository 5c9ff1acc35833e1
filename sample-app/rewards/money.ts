/**
 * Amounts of money that a request may name: above zero, at most two decimals, and no more digits than the
 * columns hold. They stay strings: a JavaScript number cannot hold 0.10.
 */
export const MONEY_PATTERN = /^(?=.*[1-9])(?:0|[1-9]\d{0,9})(?:\.\d{1,2})?$/;

/** Columns of amounts. PostgreSQL calculates with them exactly, and the driver hands them out as strings. */
export const MONEY_COLUMN = { type: 'numeric', precision: 12, scale: 2 } as const;

/** The amount with two decimals: `25` and `25.0` become `25.00`. */
export function normaliseMoney(amount: string): string {
  const [units = '', decimals = ''] = amount.split('.');
  return `${units}.${decimals.padEnd(2, '0')}`;
}

/** So many times a whole number of currency units. */
export function multiplyMoney(units: number, times: number): string {
  return `${BigInt(units) * BigInt(times)}.00`;
}

/** The sum of amounts with two decimals. */
export function sumMoney(amounts: readonly string[]): string {
  const cents = amounts.reduce((sum, amount) => sum + BigInt(amount.replace('.', '')), 0n);
  const digits = cents.toString().padStart(3, '0');
  return `${digits.slice(0, -2)}.${digits.slice(-2)}`;
}
