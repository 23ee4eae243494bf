#!/bin/busybox sh
set -e
echo "started $(busybox date -u +%Y) by $(busybox id -u)"
busybox seq 3 | busybox sed 's/^/line /' >/www/lines.txt
busybox gzip -c /www/lines.txt >/www/lines.txt.gz
exec busybox httpd -f -v -p "$1" -h /www -r corpus
