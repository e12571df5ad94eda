#!/bin/sh
# Make one role and one database for each server. PostgreSQL's image runs it on an empty volume.
set -eu
for name in prefect mlflow; do
  password=$(printenv "$(echo "$name" | tr a-z A-Z)_DB_PASSWORD")
  PGPASSWORD=$POSTGRES_PASSWORD psql --quiet --username postgres -v ON_ERROR_STOP=1 \
    -v name="$name" -v password="$password" <<'SQL'
create role :"name" login password :'password';
create database :"name" owner :"name";
revoke connect on database :"name" from public;
SQL
done
