#!/bin/sh
# Every *.template becomes a file of nginx's configuration.
set -eu
mkdir -p /etc/nginx/conf.d
rm -f /etc/nginx/sites-enabled/default
defined=$(printf '${%s} ' $(env | cut -d= -f1 | grep -E '^(LISTEN|GREETING)$'))
for template in /etc/nginx/templates/*.template; do
  target=/etc/nginx/conf.d/$(basename "$template" .template)
  envsubst "$defined" <"$template" >"$target"
  echo "$0: $template gives $target"
done
