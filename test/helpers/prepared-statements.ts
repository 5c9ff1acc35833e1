/**
 * Whether the library prepares statements where it can, unless a test says otherwise: in the pass `unprepared` it never does.
 * Child processes inherit it.
 */
export const PREPARED_STATEMENTS = process.env['PASS'] !== 'unprepared';
