#!/bin/sh
# Sums up a table with the image's tools and writes JSON.
set -eu
here=$(dirname "$(readlink -f "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
total() {
  gawk -F, 'NR > 1 { sum += $2 } END { print sum }' "$1"
}
if ! curl --silent --show-error --max-time 2 "$1/none" >"$work/answer" 2>"$work/error"; then
  echo "no answer: $(head -n 1 "$work/error")"
fi
tail -n +2 "$here/rates.csv" | sort -t, -k2 -n | cut -d, -f1 | tr '\n' ' ' >"$work/names"
jq -n --arg names "$(cat "$work/names")" --argjson sum "$(total "$here/rates.csv")" --arg year "$(date -u +%Y)" \
  '{names: ($names | split(" ") | map(select(. != ""))), sum: $sum, year: $year}' >"$2"
jq -e .sum "$2"
