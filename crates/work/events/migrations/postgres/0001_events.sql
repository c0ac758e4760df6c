CREATE TABLE event_data (
    seq          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic        TEXT    NOT NULL,
    tenant       TEXT    NOT NULL,
    lane         TEXT,
    slot         BIGINT NOT NULL,
    source       TEXT    NOT NULL,
    id           TEXT    NOT NULL,
    event        TEXT    NOT NULL,
    context      TEXT    NOT NULL,
    published_at BIGINT NOT NULL,
    UNIQUE (topic, tenant, source, id)
);
CREATE INDEX event_data_age ON event_data (published_at);
CREATE TABLE event_unordered (
    topic TEXT    NOT NULL,
    seq   BIGINT NOT NULL,
    PRIMARY KEY (topic, seq)
);
CREATE TABLE event_log (
    topic    TEXT    NOT NULL,
    position BIGINT NOT NULL,
    seq      BIGINT NOT NULL UNIQUE,
    slot     BIGINT NOT NULL,
    PRIMARY KEY (topic, position)
);
CREATE TABLE event_topics (
    topic  TEXT    NOT NULL PRIMARY KEY,
    newest BIGINT NOT NULL,
    pruned BIGINT NOT NULL
);
CREATE TABLE event_cursors (
    subscription TEXT    NOT NULL,
    part         BIGINT NOT NULL,
    parts        BIGINT NOT NULL,
    topic        TEXT    NOT NULL,
    position     BIGINT NOT NULL,
    handed       BIGINT NOT NULL,
    careful      BIGINT NOT NULL,
    suspect      BIGINT,
    fence        BIGINT NOT NULL,
    worker       TEXT,
    lease_until  BIGINT,
    claimed_at   BIGINT NOT NULL,
    PRIMARY KEY (subscription, part)
);
CREATE INDEX event_cursors_topic ON event_cursors (topic, position);
CREATE TABLE event_retries (
    subscription TEXT    NOT NULL,
    position     BIGINT NOT NULL,
    part         BIGINT NOT NULL,
    topic        TEXT    NOT NULL,
    tenant       TEXT    NOT NULL,
    lane         TEXT,
    attempts     BIGINT NOT NULL,
    due_at       BIGINT NOT NULL,
    parked       BIGINT NOT NULL,
    failure      TEXT,
    PRIMARY KEY (subscription, position)
);
CREATE INDEX event_retries_due ON event_retries (subscription, part, parked, due_at);
CREATE INDEX event_retries_lane ON event_retries (subscription, lane, parked, position);
CREATE INDEX event_retries_kept ON event_retries (topic, position);
