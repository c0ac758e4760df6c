CREATE TABLE cqrs_idempotency (
    tenant      TEXT    NOT NULL,
    command     TEXT    NOT NULL,
    key         TEXT    NOT NULL,
    fingerprint TEXT    NOT NULL,
    fence       BIGINT NOT NULL,
    until       BIGINT NOT NULL,
    answer      TEXT,
    PRIMARY KEY (tenant, command, key)
);
CREATE INDEX cqrs_idempotency_age ON cqrs_idempotency (until);
CREATE TABLE cqrs_projections (
    name       TEXT    NOT NULL,
    generation BIGINT NOT NULL,
    position   BIGINT NOT NULL,
    live       BIGINT NOT NULL,
    PRIMARY KEY (name, generation)
);
