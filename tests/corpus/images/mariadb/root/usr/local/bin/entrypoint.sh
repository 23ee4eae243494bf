#!/bin/bash
set -eo pipefail
shopt -s nullglob

log() { printf '%s [%s] %s\n' "$(date --rfc-3339=seconds)" "$1" "$2"; }

if [ "$1" = 'mariadbd' ] && [ ! -d /var/lib/mysql/mysql ]; then
  log Note 'initialising the database'
  mariadb-install-db --auth-root-authentication-method=normal --skip-test-db --datadir=/var/lib/mysql >/tmp/install.log \
    || { cat /tmp/install.log; exit 1; }
  "$@" --skip-networking &
  server=$!
  for i in {30..0}; do
    if mariadb --socket=/tmp/db.sock -uroot -e 'SELECT 1' &>/dev/null; then break; fi
    sleep 1
  done
  [ "$i" != 0 ] || { log Error 'it does not start'; exit 1; }
  mariadb --socket=/tmp/db.sock -uroot <<-SQL
	CREATE DATABASE app;
	CREATE USER 'app'@'%' IDENTIFIED BY 'secret';
	GRANT ALL ON app.* TO 'app'@'%';
	ALTER USER root@localhost IDENTIFIED BY '$MARIADB_ROOT_PASSWORD';
	SQL
  kill "$server"
  wait "$server"
  log Note 'ready for start up'
fi
exec "$@"
