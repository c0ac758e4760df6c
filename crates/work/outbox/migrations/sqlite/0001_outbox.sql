CREATE TABLE outbox_messages (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    channel    TEXT   NOT NULL,
    shard      INTEGER NOT NULL,
    tenant     TEXT   NOT NULL,
    lane       TEXT,
    topic      TEXT   NOT NULL,
    event      TEXT   NOT NULL,
    context    TEXT   NOT NULL,
    created_at INTEGER NOT NULL,
    state      INTEGER NOT NULL DEFAULT 0,
    attempts   INTEGER NOT NULL DEFAULT 0,
    due_at     INTEGER NOT NULL DEFAULT 0,
    failure    TEXT,
    sent_at    INTEGER
) STRICT;
CREATE INDEX outbox_queue ON outbox_messages (channel, shard, state, seq) WHERE state < 5;
CREATE INDEX outbox_lanes ON outbox_messages (channel, lane, state) WHERE state > 0 AND state < 5;
CREATE INDEX outbox_age ON outbox_messages (sent_at) WHERE state = 5;
CREATE TABLE outbox_shards (
    channel     TEXT   NOT NULL,
    shard       INTEGER NOT NULL,
    fence       INTEGER NOT NULL DEFAULT 0,
    lease_until INTEGER,
    claimed_at  INTEGER NOT NULL DEFAULT 0,
    handed      INTEGER NOT NULL DEFAULT 0,
    careful     INTEGER NOT NULL DEFAULT 0,
    suspect     INTEGER,
    PRIMARY KEY (channel, shard)
) STRICT;
CREATE TABLE inbox_messages (
    consumer   TEXT   NOT NULL,
    tenant     TEXT   NOT NULL,
    message_id TEXT   NOT NULL,
    seen_at    INTEGER NOT NULL,
    PRIMARY KEY (consumer, tenant, message_id)
) STRICT;
CREATE INDEX inbox_age ON inbox_messages (seen_at);
