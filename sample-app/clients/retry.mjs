#!/usr/bin/env node
// Posts JSON, and tries again under the same key until there is a final answer: after network errors, timeouts and 5xx, with
// exponential backoff. Every 4xx is final; RETRY_ON='409|5..' waits for a request that is still in progress, too.
//
//   node retry.mjs URL JSON KEY ['Name: value' of further headers...]
//
// Prints the body of the final answer. Exits with 0 for a success, 1 for a refusal, 2 if no attempt was answered.
import { setTimeout as sleep } from 'node:timers/promises';

const [url, body, key, ...lines] = process.argv.slice(2);
if (key === undefined) {
  console.error(`Usage: node retry.mjs URL JSON KEY ['Name: value'...]`);
  process.exit(64);
}

const attempts = Number(process.env.ATTEMPTS ?? 12);
const timeout = Number(process.env.TIMEOUT ?? 10) * 1_000; // of one attempt
const firstDelay = Number(process.env.DELAY ?? 200); // before the second attempt, in milliseconds; then twice as much each time
const longestDelay = 5_000;
const retryOn = new RegExp(`^(?:${process.env.RETRY_ON ?? '5..'})$`); // statuses

const headers = { 'Content-Type': 'application/json' };
if (key !== '') headers['Idempotency-Key'] = key;
for (const line of lines) {
  const [name, ...value] = line.split(':');
  headers[name] = value.join(':').trim();
}

/** Resolves with what was answered, or with nothing when nobody knows whether the request took effect. */
async function send() {
  try {
    const response = await fetch(url, {
      method: 'POST',
      headers,
      body,
      signal: AbortSignal.timeout(timeout),
    });
    return { status: response.status, text: await response.text() };
  } catch (error) {
    return { status: error.cause?.message ?? error.message };
  }
}

async function sendUntilFinal() {
  let delay = firstDelay;
  for (let attempt = 1; attempt <= attempts; attempt++) {
    const { status, text } = await send();
    // The key makes it safe to send the same again.
    if (text !== undefined && !retryOn.test(status)) return { status, text };
    console.error(`attempt ${attempt}: ${status}`);
    // Up to half as much again, so that clients which failed together do not come back together.
    await sleep(delay * (1 + Math.random() / 2));
    delay = Math.min(2 * delay, longestDelay);
  }
  return undefined;
}

const answer = await sendUntilFinal();
if (answer === undefined) {
  console.error(`no final answer after ${attempts} attempts`);
  process.exitCode = 2;
} else {
  console.log(answer.text);
  process.exitCode = answer.status < 300 ? 0 : 1;
}
