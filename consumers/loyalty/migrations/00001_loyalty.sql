-- +goose Up
CREATE TABLE points (
    order_id    text   PRIMARY KEY,
    customer_id text,              -- null for an order that was cancelled before it was known
    points      bigint NOT NULL    -- 0 once the order is cancelled
);
CREATE INDEX points_customer ON points (customer_id);
