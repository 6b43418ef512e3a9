#!/bin/sh
# PostgreSQL, and a psql that keeps one session with it over TCP: it reads /srv/session/in and writes /srv/session/out.
set -eu
mkdir -p /srv/session
cd /srv/session
mkfifo -m 666 in
su postgres -s /bin/sh -c "exec /usr/lib/postgresql/15/bin/postgres -D /var/lib/postgresql/15/main \
    -c config_file=/etc/postgresql/15/main/postgresql.conf -c hba_file=/srv/apps/pg_hba.conf \
    -c listen_addresses=* -c ssl=off -c unix_socket_directories=/tmp" &
until /usr/lib/postgresql/15/bin/pg_isready -q -h 127.0.0.1; do sleep 0.1; done
exec 3<>in
exec /usr/lib/postgresql/15/bin/psql -q -A -t -h 127.0.0.1 -U postgres <&3 >out 2>&1
