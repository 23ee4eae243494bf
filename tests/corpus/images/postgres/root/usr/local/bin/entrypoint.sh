#!/bin/bash
# What the entry points of database images do: a new cluster with a password, a start-up of its own for the first
# statements, then the real one.
set -Eeuo pipefail

if [ "${1:0:1}" = '-' ]; then
  set -- postgres "$@"
fi

if [ "$1" = 'postgres' ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
  mkdir -p "$PGDATA"
  chmod 700 "$PGDATA"
  initdb --username=postgres --auth-host=scram-sha-256 --auth-local=trust --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD")
  pg_ctl -D "$PGDATA" -o "-c listen_addresses='' -c unix_socket_directories=/tmp" -w start
  psql -v ON_ERROR_STOP=1 --host /tmp --username postgres --no-password --no-psqlrc <<-'SQL'
	CREATE DATABASE app;
	SQL
  for f in /docker-entrypoint-initdb.d/*; do
    case "$f" in
      *.sql) psql --host /tmp --username postgres --dbname app -f "$f" ;;
      *) echo "ignoring $f" ;;
    esac
  done
  pg_ctl -D "$PGDATA" -m fast -w stop
fi

# postgres refuses a key that others may read, as a mounted one often is.
if [ -f /etc/tls/tls.key ]; then
  install -m 600 /etc/tls/tls.key /tmp/tls.key
fi

exec "$@"
