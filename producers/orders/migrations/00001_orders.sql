-- +goose Up

-- One row an order. doc is the order as it was accepted, in JSON; it is bytea
-- because nobody looks inside with SQL and parsing it as jsonb was the dearest
-- single thing Postgres did per order. What changes later has a column.
CREATE TABLE orders (
  order_id      uuid        PRIMARY KEY,
  version       bigint      NOT NULL DEFAULT 1 CHECK (version > 0),
  status        text        NOT NULL DEFAULT 'PLACED',
  customer_id   text        NOT NULL,
  channel       text        NOT NULL,
  currency      text        NOT NULL,
  scale         smallint    NOT NULL,
  grand_minor   bigint      NOT NULL,
  line_count    int         NOT NULL,
  placed_at     timestamptz NOT NULL,
  changed_at    timestamptz NOT NULL,
  cancelled_by  text,
  cancel_reason text,
  doc           bytea       NOT NULL
);

-- No foreign key to orders: one transaction of one code path writes both, so a
-- key would prove little and costs a fifth of the throughput.
CREATE TABLE order_lines (
  order_id      uuid     NOT NULL,
  line_no       int      NOT NULL,
  sku           text     NOT NULL,
  seller_id     text     NOT NULL,
  quantity      int      NOT NULL,
  unit_minor    bigint   NOT NULL,
  freight_minor bigint   NOT NULL,
  PRIMARY KEY (order_id, line_no)
);

-- One row a request that changed something, written in the transaction of the
-- change. A table of its own, so that its rows can expire and orders cannot.
CREATE TABLE idempotency_keys (
  client_id   text        NOT NULL,
  key         text        NOT NULL,
  fingerprint bytea       NOT NULL,
  order_id    uuid        NOT NULL,
  version     bigint      NOT NULL DEFAULT 1,
  status      smallint    NOT NULL DEFAULT 201,
  response    bytea       NOT NULL,
  created_at  timestamptz NOT NULL,
  PRIMARY KEY (client_id, key)
);

-- Rows arrive in the order of time, so a few bytes per block range are enough
-- to find the expired ones, and inserting costs next to nothing.
CREATE INDEX idempotency_keys_created_at ON idempotency_keys USING brin (created_at);
