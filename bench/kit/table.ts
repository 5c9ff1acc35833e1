type Cell = string | number | undefined | null;

/** Rows as text, in columns as wide as they need to be; numbers stand to the right. */
export function table(head: readonly string[], rows: readonly (readonly Cell[])[]): string {
  const lines = [head, ...rows.map((row) => row.map(textOf))];
  const widths = head.map((_, column) => Math.max(...lines.map((line) => (line[column] ?? '').length)));
  const isNumber = head.map((_, column) => rows.some((row) => typeof row[column] === 'number'));
  const formatted = lines.map((line) =>
    line
      .map((cell, column) =>
        isNumber[column] ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!),
      )
      .join('  ')
      .trimEnd(),
  );
  formatted.splice(1, 0, widths.map((width) => '-'.repeat(width)).join('  '));
  return formatted.join('\n');
}

function textOf(cell: Cell): string {
  if (cell === undefined || cell === null || Number.isNaN(cell)) return '–';
  if (typeof cell === 'string') return cell;
  if (Number.isInteger(cell) || Math.abs(cell) >= 1000) return String(Math.round(cell));
  return cell.toFixed(Math.abs(cell) >= 100 ? 1 : 2);
}
