CREATE TABLE runtime_rollouts (
    name        TEXT    NOT NULL PRIMARY KEY,
    revision    INTEGER NOT NULL,
    generation  INTEGER NOT NULL,
    data        TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE runtime_rollout_evidence (
    name        TEXT    NOT NULL,
    generation  INTEGER NOT NULL,
    side        TEXT    NOT NULL,
    requests    INTEGER NOT NULL,
    failed      INTEGER NOT NULL,
    slow        INTEGER NOT NULL,
    PRIMARY KEY (name, generation, side)
) STRICT, WITHOUT ROWID;
