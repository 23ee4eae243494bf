#!/bin/sh
set -e
spawn-fcgi -s /tmp/f.sock -M 666 -- /usr/sbin/fcgiwrap
sed "s/@PORT@/$PORT/" /srv/nginx.conf >/tmp/nginx.conf
exec nginx -c /tmp/nginx.conf -g 'daemon off;'
