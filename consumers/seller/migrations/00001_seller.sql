-- +goose Up

-- The orders this service has heard of. An order that was cancelled before it
-- was known is here too, without entries, so that it is never accepted.
CREATE TABLE orders (
    order_id  text    PRIMARY KEY,
    version   bigint  NOT NULL,               -- events told about the order so far: the version of the last one
    cancelled boolean NOT NULL DEFAULT false
);

-- What each seller has to pack for an order.
CREATE TABLE entries (
    order_id   text        NOT NULL,
    seller_id  text        NOT NULL,
    place      int         NOT NULL,          -- of the seller within the order, from 0
    state      text        NOT NULL CHECK (state IN ('accepted', 'released')),
    ready_by   timestamptz NOT NULL,
    lines      jsonb       NOT NULL,          -- [{"line_no": 1, "sku": "85123A", "quantity": 6}]
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (order_id, seller_id)
);
