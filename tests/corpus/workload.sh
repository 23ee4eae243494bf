# What a workload stands on. The driver runs `bash tests/corpus/workload.sh FILE` with, in its environment,
#   PORT, PORT2, PORT3, PORT4   free TCP and UDP ports of this machine; the container has the same
#   RUN         the folder of this run: its mounts, tls.pem (also the authority that signed it) and tls.key
#   LOG         what the container has written to standard output and error
#   CTR, ID     `ctr` with its options, and the container
#   NAMESERVER  a name server that knows every name below corpus.test as 127.0.0.1
# Whatever fails ends it; `fail` says why.
# shellcheck shell=bash
set -Eeuo pipefail
shopt -s inherit_errexit

fail() {
  trap - ERR
  echo "workload: $*" >&2
  exit 1
}
trap 'fail "line $LINENO fails: $BASH_COMMAND"' ERR

# eventually COMMAND...: waits up to 15 seconds until it succeeds.
eventually() {
  local tries
  for tries in $(seq 150); do
    if ("$@") >/dev/null 2>&1; then return 0; fi
    sleep 0.1
  done
  fail "after $tries tries this still fails: $*"
}

# says TEXT COMMAND...: its output, errors included, has TEXT in it.
says() {
  local text=$1 output
  shift
  output=$("$@" 2>&1) || fail "$* ends with $?: ${output:0:2000}"
  [[ $output == *"$text"* ]] || fail "$* does not say '$text': ${output:0:2000}"
}

# errs TEXT COMMAND...: it fails, and its output has TEXT in it.
errs() {
  local text=$1 output
  shift
  if output=$("$@" 2>&1); then fail "$* succeeds: ${output:0:2000}"; fi
  [[ $output == *"$text"* ]] || fail "$* does not say '$text': ${output:0:2000}"
}

# status CODE CURL-ARGUMENT...: the status of a response.
status() {
  local wanted=$1 code
  shift
  code=$(curl --silent --show-error --max-time 20 --output /dev/null --write-out '%{http_code}' "$@") \
    || fail "curl $* ends with $?"
  [[ $code == "$wanted" ]] || fail "curl $* is answered with $code, not $wanted"
}

# get CURL-ARGUMENT...: a response that must be a success.
get() {
  curl --silent --show-error --fail --max-time 20 "$@"
}

# over_tls CURL-ARGUMENT...: the same, with the authority that signed the container's certificate.
over_tls() {
  get --cacert "$RUN/tls.pem" "$@"
}

# signal NAME: to the container's first process.
signal() {
  # shellcheck disable=SC2086
  $CTR task kill --signal "$1" "$ID"
}

logged() {
  grep -qF -- "$1" "$LOG"
}

cd "$RUN"
# shellcheck source=/dev/null
. "$1"
