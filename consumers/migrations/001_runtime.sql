-- +goose Up

-- How far a group has come in each partition. The row moves in the same
-- transaction as the effects, through consumer_fence only. fillfactor leaves
-- room for the new version of a row on its own page (HOT updates).
CREATE TABLE consumer_position (
    grp            text        NOT NULL,
    topic          text        NOT NULL,
    part           int         NOT NULL,
    topic_id       uuid,                       -- Kafka's id: a topic made anew has another
    next_offset    bigint      NOT NULL,       -- the first offset not yet applied
    leader_epoch   int         NOT NULL DEFAULT -1,
    fence          bigint      NOT NULL,       -- counts owners; only the newest may write
    owner          text        NOT NULL,
    applied_count  bigint      NOT NULL DEFAULT 0,  -- events that passed: handled, skipped or held
    applied_hash   bigint      NOT NULL DEFAULT 0,  -- sum of their hashes, modulo 2^64
    last_record_ts timestamptz,
    updated_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (grp, topic, part)
) WITH (fillfactor = 50);

-- The last number seen of each source in each partition. In a committed log
-- the numbers have no hole and no repeat.
CREATE TABLE consumer_source (
    grp         text   NOT NULL,
    topic       text   NOT NULL,
    part        int    NOT NULL,
    source      text   NOT NULL,
    incarnation bigint NOT NULL,
    n           bigint NOT NULL,
    PRIMARY KEY (grp, topic, part, source)
) WITH (fillfactor = 50);

-- Events that were set aside: a dead letter, and behind it the later events of
-- its key in their order. headers: for each header its key and its value, each
-- behind its length as an unsigned varint (a null value has length 0).
CREATE TABLE consumer_hold (
    id              bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    grp             text        NOT NULL,
    topic           text        NOT NULL,
    part            int         NOT NULL,
    off             bigint      NOT NULL,
    sequence_key    bytea       NOT NULL,
    state           text        NOT NULL
        CHECK (state IN ('retry', 'parked', 'dead', 'resolved', 'discarded', 'superseded')),
    attempts        int         NOT NULL DEFAULT 0,
    redrives        int         NOT NULL DEFAULT 0,
    due_at          timestamptz,
    error_class     text        CHECK (error_class IN ('decode', 'schema', 'validation', 'handler', 'timeout', 'unknown')),
    fingerprint     bytea,
    error_message   text,
    error_detail    text,
    first_failed_at timestamptz,
    last_failed_at  timestamptz,
    event_id        uuid        NOT NULL,
    event_type      text        NOT NULL,
    record_ts       timestamptz NOT NULL,
    key             bytea,
    value           bytea,
    headers         bytea       NOT NULL,
    UNIQUE (grp, topic, part, off)
);
CREATE INDEX consumer_hold_due ON consumer_hold (grp, due_at) WHERE state = 'retry';
CREATE INDEX consumer_hold_open ON consumer_hold (grp, topic, part, sequence_key, off)
    WHERE state IN ('retry', 'parked', 'dead');
CREATE INDEX consumer_hold_fingerprint ON consumer_hold (grp, fingerprint) WHERE state = 'dead';

-- External effects that were asked for, once each for ever.
CREATE TABLE effects_done (
    idem_key text PRIMARY KEY
);

-- consumer_sum adds modulo 2^64, which plain bigint addition refuses to.
-- +goose StatementBegin
CREATE FUNCTION consumer_sum(a bigint, b bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN a::numeric + b > 9223372036854775807 THEN a::numeric + b - 18446744073709551616
        WHEN a::numeric + b < -9223372036854775808 THEN a::numeric + b + 18446744073709551616
        ELSE a::numeric + b
    END::bigint
$$;
-- +goose StatementEnd

-- consumer_fence moves a partition's position, sums and source numbers
-- together, and raises OF001 unless the caller is still the newest owner and
-- the position is where the caller left it. It comes first in the transaction
-- of the effects, so it also locks out every other writer until that ends.
-- +goose StatementBegin
CREATE FUNCTION consumer_fence(
    p_grp text, p_topic text, p_part int,
    p_fence bigint, p_expected bigint, p_next bigint, p_epoch int,
    p_count bigint, p_hash bigint, p_record_ts timestamptz,
    p_sources text[], p_incarnations bigint[], p_ns bigint[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    now_fence  bigint;
    now_offset bigint;
    now_owner  text;
BEGIN
    UPDATE consumer_position AS p
    SET next_offset = p_next,
        leader_epoch = p_epoch,
        applied_count = p.applied_count + p_count,
        applied_hash = consumer_sum(p.applied_hash, p_hash),
        last_record_ts = coalesce(p_record_ts, p.last_record_ts),
        updated_at = clock_timestamp()
    WHERE p.grp = p_grp AND p.topic = p_topic AND p.part = p_part
      AND p.fence = p_fence AND p.next_offset = p_expected AND p_next > p_expected;
    IF NOT FOUND THEN
        SELECT p.fence, p.next_offset, p.owner INTO now_fence, now_offset, now_owner
        FROM consumer_position AS p
        WHERE p.grp = p_grp AND p.topic = p_topic AND p.part = p_part;
        RAISE EXCEPTION 'fenced: position of % in %[%] is fence % at % of %, not fence % at %',
            p_grp, p_topic, p_part, now_fence, now_offset, now_owner, p_fence, p_expected
            USING ERRCODE = 'OF001';
    END IF;
    IF cardinality(p_sources) > 0 THEN
        INSERT INTO consumer_source AS s (grp, topic, part, source, incarnation, n)
        SELECT p_grp, p_topic, p_part, u.source, u.incarnation, u.n
        FROM unnest(p_sources, p_incarnations, p_ns) AS u (source, incarnation, n)
        ON CONFLICT (grp, topic, part, source)
        DO UPDATE SET incarnation = excluded.incarnation, n = excluded.n;
    END IF;
END
$$;
-- +goose StatementEnd
