-- +goose Up

-- One row a source: who leads, since when, and a copy of the checkpoint that
-- the leader last committed to Kafka. Kafka's is the truth; the copy serves
-- retention, status, and to notice that Kafka lost it.
CREATE TABLE relay (
  source      text        PRIMARY KEY,
  term        bigint      NOT NULL,
  holder      uuid        NOT NULL,
  expires_at  timestamptz NOT NULL,
  incarnation bigint      NOT NULL DEFAULT 1,
  checkpoint  jsonb,
  updated_at  timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 10);
