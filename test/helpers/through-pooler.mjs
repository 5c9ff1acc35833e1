/** Set-up of every test file of the pass through PgBouncer; child processes of the tests inherit it. */
process.env.IDEMPOTENCY_TEST_THROUGH_POOLER = 'yes';
