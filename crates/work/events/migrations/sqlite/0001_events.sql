CREATE TABLE event_data (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    topic        TEXT    NOT NULL,
    tenant       TEXT    NOT NULL,
    lane         TEXT,
    slot         INTEGER NOT NULL,
    source       TEXT    NOT NULL,
    id           TEXT    NOT NULL,
    event        TEXT    NOT NULL,
    context      TEXT    NOT NULL,
    published_at INTEGER NOT NULL,
    UNIQUE (topic, tenant, source, id)
) STRICT;
CREATE INDEX event_data_age ON event_data (published_at);
CREATE TABLE event_unordered (
    topic TEXT    NOT NULL,
    seq   INTEGER NOT NULL,
    PRIMARY KEY (topic, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE event_log (
    topic    TEXT    NOT NULL,
    position INTEGER NOT NULL,
    seq      INTEGER NOT NULL UNIQUE,
    slot     INTEGER NOT NULL,
    PRIMARY KEY (topic, position)
) STRICT, WITHOUT ROWID;
CREATE TABLE event_topics (
    topic  TEXT    NOT NULL PRIMARY KEY,
    newest INTEGER NOT NULL,
    pruned INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE event_cursors (
    subscription TEXT    NOT NULL,
    part         INTEGER NOT NULL,
    parts        INTEGER NOT NULL,
    topic        TEXT    NOT NULL,
    position     INTEGER NOT NULL,
    handed       INTEGER NOT NULL,
    careful      INTEGER NOT NULL,
    suspect      INTEGER,
    fence        INTEGER NOT NULL,
    worker       TEXT,
    lease_until  INTEGER,
    claimed_at   INTEGER NOT NULL,
    PRIMARY KEY (subscription, part)
) STRICT, WITHOUT ROWID;
CREATE INDEX event_cursors_topic ON event_cursors (topic, position);
CREATE TABLE event_retries (
    subscription TEXT    NOT NULL,
    position     INTEGER NOT NULL,
    part         INTEGER NOT NULL,
    topic        TEXT    NOT NULL,
    tenant       TEXT    NOT NULL,
    lane         TEXT,
    attempts     INTEGER NOT NULL,
    due_at       INTEGER NOT NULL,
    parked       INTEGER NOT NULL,
    failure      TEXT,
    PRIMARY KEY (subscription, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX event_retries_due ON event_retries (subscription, part, parked, due_at);
CREATE INDEX event_retries_lane ON event_retries (subscription, lane, parked, position);
CREATE INDEX event_retries_kept ON event_retries (topic, position);
