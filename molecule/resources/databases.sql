-- Users and databases of a server, the same everywhere. Prints "created" where there was anything to do.
-- merchant owns the databases and all that is in them; replicator is for standbys.
SELECT format('CREATE ROLE %I LOGIN %s PASSWORD %L', name, rights, password) || '; SELECT ''created'''
  FROM (VALUES ('merchant', '', :'merchant_password'), ('replicator', 'REPLICATION', :'replicator_password'))
    AS wanted (name, rights, password)
  WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec
SELECT format('CREATE DATABASE %I OWNER merchant', name)
  FROM (VALUES ('shop'), ('stock')) AS wanted (name)
  WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = name) \gexec

\connect shop
SET ROLE merchant;
SELECT to_regclass('public.orders') IS NULL AS empty \gset
\if :empty
  BEGIN;
  CREATE TABLE customers (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE);
  CREATE TABLE orders (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer integer NOT NULL REFERENCES customers,
    ordered timestamptz NOT NULL,
    amount numeric(10, 2) NOT NULL CHECK (amount >= 0)
  );
  CREATE INDEX ON orders (customer);
  INSERT INTO customers (name) SELECT 'customer ' || n || ' – Zoë' FROM generate_series(1, 500) AS n;
  INSERT INTO orders (customer, ordered, amount)
    SELECT 1 + n % 500, timestamptz '2025-01-01 00:00:00+00' + n * interval '1 minute', n * 0.37
    FROM generate_series(1, 5000) AS n;
  SELECT lo_from_bytea(4711, convert_to(repeat('The picture of the shop. ', 2000), 'UTF8')) <> 0 AS picture \gset
  COMMIT;
  SELECT 'created';
\endif

\connect stock
SET ROLE merchant;
SELECT to_regclass('public.articles') IS NULL AS empty \gset
\if :empty
  BEGIN;
  CREATE TABLE articles (code text PRIMARY KEY, pieces integer NOT NULL, picture bytea);
  CREATE SEQUENCE deliveries START 1000;
  INSERT INTO articles
    SELECT 'A-' || lpad(n::text, 5, '0'), n % 97, decode(md5(n::text), 'hex') FROM generate_series(1, 3000) AS n;
  SELECT nextval('deliveries') > 0 AS delivered \gset
  COMMIT;
  SELECT 'created';
\endif
