#!/usr/bin/env bash
# Posts JSON, and tries again under the same key until there is a final answer: after network errors, timeouts and 5xx, with
# exponential backoff. Every 4xx is final; RETRY_ON='409|5..' waits for a request that is still in progress, too.
#
#   retry.sh URL JSON KEY ['Name: value' of further headers...]
#
# Prints the body of the final answer. Exits with 0 for a success, 1 for a refusal, 2 if no attempt was answered.
set -euo pipefail

if (($# < 3)); then
  echo "Usage: retry.sh URL JSON KEY ['Name: value'...]" >&2
  exit 64
fi
url=$1 body=$2 key=$3
shift 3

attempts=${ATTEMPTS:-12}
timeout=${TIMEOUT:-10}    # of one attempt, in seconds
delay=${DELAY:-200}       # before the second attempt, in milliseconds; then twice as much each time
longest_delay=5000
retry_on=${RETRY_ON:-5..} # statuses, as a regular expression

options=(--silent --show-error --max-time "$timeout" --write-out '\n%{http_code}')
options+=(--header 'Content-Type: application/json')
if [[ -n $key ]]; then options+=(--header "Idempotency-Key: $key"); fi
for header in "$@"; do options+=(--header "$header"); done

for ((attempt = 1; attempt <= attempts; attempt++)); do
  # When curl fails, nobody knows whether the request took effect: the key makes it safe to send it again.
  if answer=$(curl "${options[@]}" --data "$body" "$url"); then
    status=${answer##*$'\n'}
    if ! [[ $status =~ ^($retry_on)$ ]]; then
      printf '%s\n' "${answer%$'\n'*}"
      if [[ $status == 2* ]]; then exit 0; else exit 1; fi
    fi
    echo "attempt $attempt: $status" >&2
  fi
  # Up to half as much again, so that clients which failed together do not come back together.
  pause=$((delay + RANDOM % (delay / 2 + 1)))
  sleep "$(printf '%d.%03d' $((pause / 1000)) $((pause % 1000)))"
  delay=$((delay * 2 < longest_delay ? delay * 2 : longest_delay))
done
echo "no final answer after $attempts attempts" >&2
exit 2
