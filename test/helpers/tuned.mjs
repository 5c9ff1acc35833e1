// Applications of the tests have every tuning option on, also those in processes of their own.
process.env.TUNING ??= 'all';
