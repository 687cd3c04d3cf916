-- +goose Up

-- The orders this service has heard of. An order that was cancelled before it
-- was known is here too, without shipments, so that none is ever made.
CREATE TABLE orders (
    order_id  text    PRIMARY KEY,
    version   bigint  NOT NULL,               -- events told about the order so far: the version of the last one
    cancelled boolean NOT NULL DEFAULT false
);

-- One package: what one seller sends for one order.
CREATE TABLE shipments (
    order_id    text        NOT NULL,
    seller_id   text        NOT NULL,
    place       int         NOT NULL,         -- of the seller within the order, from 0
    shipment_id uuid        NOT NULL,
    state       text        NOT NULL CHECK (state IN ('assigned', 'unavailable', 'cancelled')),
    carrier     text,                         -- null while unavailable
    rule        text,                         -- that chose the carrier, or the reason why none did
    weight_g    bigint      NOT NULL,         -- the one that counts: the higher of weight and volume weight
    eta         timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (order_id, seller_id)
);
