#!/bin/busybox sh
printf 'Content-Type: text/plain\r\n\r\n'
echo "$REQUEST_METHOD $QUERY_STRING"
busybox nslookup some.corpus.test 2>&1 | busybox grep -A1 'Name:'
if [ "$REQUEST_METHOD" = POST ]; then busybox head -c "$CONTENT_LENGTH" | busybox wc -c; fi
busybox awk 'BEGIN { print 6 * 7 }'
