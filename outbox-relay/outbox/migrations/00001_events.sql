-- +goose Up

-- Insert-only: rows leave by dropping whole partitions. xid stands before seq
-- because defaults are evaluated in column order: a row's transaction id is
-- assigned before its sequence number is drawn.
CREATE TABLE events (
  xid               xid8        NOT NULL DEFAULT pg_current_xact_id(),
  seq               bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
  created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
  event_id          uuid        NOT NULL,
  aggregate_type    text        NOT NULL,
  aggregate_id      text        NOT NULL CHECK (aggregate_id <> ''),
  aggregate_version bigint      NOT NULL CHECK (aggregate_version > 0),
  event_type        text        NOT NULL,
  topic             text        NOT NULL,
  schema_fp         bigint      NOT NULL,
  payload           bytea       NOT NULL CHECK (octet_length(payload) BETWEEN 5 AND 900000),
  headers           bytea       NOT NULL
) PARTITION BY RANGE (created_at);

-- The relay reads a window of transactions, and a large window in the order
-- of seq, page by page.
CREATE INDEX events_xid ON events (xid);
CREATE INDEX events_seq ON events (seq);

-- Each writer's schemas, in band: the relay can register one that was written
-- by a newer version than its own.
CREATE TABLE schemas (
  fingerprint bigint      PRIMARY KEY,
  subject     text        NOT NULL,
  text        text        NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- ensure_partitions makes the daily partitions (UTC) of the days from
-- yesterday on. A table is made first and attached then, since ATTACH does
-- not stop writers, which CREATE TABLE ... PARTITION OF does:
-- https://www.postgresql.org/docs/15/ddl-partitioning.html
-- +goose StatementBegin
CREATE FUNCTION ensure_partitions(days int) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = outbox, pg_catalog, pg_temp AS $$
DECLARE
  today date := (clock_timestamp() AT TIME ZONE 'UTC')::date;
  made  int  := 0;
  d     date;
  name  text;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('outbox.ensure_partitions', 0));
  FOR d IN SELECT today + n FROM generate_series(-1, days) n LOOP
    name := 'events_' || to_char(d, 'YYYYMMDD');
    CONTINUE WHEN to_regclass('outbox.' || name) IS NOT NULL;
    EXECUTE format('CREATE TABLE outbox.%I (LIKE outbox.events INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)
                    WITH (autovacuum_vacuum_insert_threshold = -1)', name);
    EXECUTE format('ALTER TABLE outbox.events ATTACH PARTITION outbox.%I FOR VALUES FROM (%L) TO (%L)',
                   name, to_char(d, 'YYYY-MM-DD') || ' 00:00:00+00', to_char(d + 1, 'YYYY-MM-DD') || ' 00:00:00+00');
    made := made + 1;
  END LOOP;
  RETURN made;
END $$;
-- +goose StatementEnd

SELECT ensure_partitions(14);
