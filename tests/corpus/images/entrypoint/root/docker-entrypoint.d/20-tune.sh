#!/bin/bash
# Changes the main configuration in place, after asking the machine.
set -euo pipefail
cores=$(nproc)
sed -i -E "s/^worker_processes .*/worker_processes $((cores > 2 ? 2 : cores));/; s|access_log .*|access_log /dev/stdout;|; s|error_log .*|error_log stderr;|" /etc/nginx/nginx.conf
id=$(head -c 8 /dev/urandom | od -An -tx1 | tr -d ' \n')
date=$(date -u +%Y)
awk -v id="$id" -v year="$date" 'BEGIN { printf "add_header X-Instance %s-%s;\n", year, id }' >/etc/nginx/conf.d/00-instance.conf
if [[ -n ${GREETING:-} ]]; then
  openssl rand -hex 4 >/var/www/html/random.txt
fi
