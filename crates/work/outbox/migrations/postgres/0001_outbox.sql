CREATE TABLE outbox_messages (
    seq        BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    channel    TEXT   NOT NULL,
    shard      BIGINT NOT NULL,
    tenant     TEXT   NOT NULL,
    lane       TEXT,
    topic      TEXT   NOT NULL,
    event      TEXT   NOT NULL,
    context    TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    state      BIGINT NOT NULL DEFAULT 0,
    attempts   BIGINT NOT NULL DEFAULT 0,
    due_at     BIGINT NOT NULL DEFAULT 0,
    failure    TEXT,
    sent_at    BIGINT
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX outbox_queue ON outbox_messages (channel, shard, state, seq) WHERE state < 5;
CREATE INDEX outbox_lanes ON outbox_messages (channel, lane, state) WHERE state > 0 AND state < 5;
CREATE INDEX outbox_age ON outbox_messages (sent_at) WHERE state = 5;
CREATE TABLE outbox_shards (
    channel     TEXT   NOT NULL,
    shard       BIGINT NOT NULL,
    fence       BIGINT NOT NULL DEFAULT 0,
    lease_until BIGINT,
    claimed_at  BIGINT NOT NULL DEFAULT 0,
    handed      BIGINT NOT NULL DEFAULT 0,
    careful     BIGINT NOT NULL DEFAULT 0,
    suspect     BIGINT,
    PRIMARY KEY (channel, shard)
) WITH (fillfactor = 50);
CREATE TABLE inbox_messages (
    consumer   TEXT   NOT NULL,
    tenant     TEXT   NOT NULL,
    message_id TEXT   NOT NULL,
    seen_at    BIGINT NOT NULL,
    PRIMARY KEY (consumer, tenant, message_id)
);
CREATE INDEX inbox_age ON inbox_messages (seen_at);
