/**
 * Environment for the server's own processes: without what would configure PostgreSQL or Node behind our back,
 * and with messages in English, because some of them are recognised.
 */
export function serverEnvironment(): NodeJS.ProcessEnv {
  const inherited = Object.entries(process.env).filter(([name]) => !/^(PG|NODE_|LC_|LANG)/.test(name));
  // A time zone that is given spares initdb a search through all the zones there are.
  return { ...Object.fromEntries(inherited), LC_ALL: 'C', TZ: 'UTC' };
}
