CREATE TABLE cqrs_idempotency (
    tenant      TEXT    NOT NULL,
    command     TEXT    NOT NULL,
    key         TEXT    NOT NULL,
    fingerprint TEXT    NOT NULL,
    fence       INTEGER NOT NULL,
    until       INTEGER NOT NULL,
    answer      TEXT,
    PRIMARY KEY (tenant, command, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX cqrs_idempotency_age ON cqrs_idempotency (until);
CREATE TABLE cqrs_projections (
    name       TEXT    NOT NULL,
    generation INTEGER NOT NULL,
    position   INTEGER NOT NULL,
    live       INTEGER NOT NULL,
    PRIMARY KEY (name, generation)
) STRICT, WITHOUT ROWID;
