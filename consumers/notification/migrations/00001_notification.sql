-- +goose Up

-- The orders this service has heard of. An order that was cancelled before it
-- was known has no customer and gets no mails.
CREATE TABLE orders (
    order_id    text    PRIMARY KEY,
    customer_id text,
    mails       bigint  NOT NULL DEFAULT 0,    -- the number of the order's last mail
    cancelled   boolean NOT NULL DEFAULT false
);

-- Every mail, numbered by order. The mails of one order leave one after the
-- other: at most one is queued, which means that a job exists that sends it,
-- and later ones wait. A mail leads to one event, whose version is its number.
CREATE TABLE mails (
    order_id       text        NOT NULL,
    number         bigint      NOT NULL,
    template       text        NOT NULL,
    state          text        NOT NULL CHECK (state IN ('waiting', 'queued', 'sent', 'failed', 'suppressed')),
    idem_key       text        NOT NULL,       -- group, event and effect; becomes the Message-ID
    cause_id       text        NOT NULL,       -- the event that the mail tells of
    correlation_id text        NOT NULL,
    flow           text        NOT NULL,
    synthetic      boolean     NOT NULL,
    content        jsonb,                      -- what the template needs; dropped when the mail is settled
    created_at     timestamptz NOT NULL DEFAULT now(),
    settled_at     timestamptz,
    PRIMARY KEY (order_id, number)
);
CREATE UNIQUE INDEX mails_queued ON mails (order_id) WHERE state = 'queued';
CREATE INDEX mails_open ON mails (created_at) WHERE state IN ('waiting', 'queued');

-- Where customers are reached. This is the only place that knows: events carry
-- pseudonymous ids, so forgetting a person is deleting a row here.
CREATE TABLE contacts (
    customer_id text        PRIMARY KEY,
    address     text        NOT NULL CHECK (address <> ''),
    created_at  timestamptz NOT NULL DEFAULT now()
);
