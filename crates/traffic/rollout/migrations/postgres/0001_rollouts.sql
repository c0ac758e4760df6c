CREATE TABLE runtime_rollouts (
    name        TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    revision    BIGINT NOT NULL,
    generation  BIGINT NOT NULL,
    data        TEXT   NOT NULL
);
CREATE TABLE runtime_rollout_evidence (
    name        TEXT COLLATE "C" NOT NULL,
    generation  BIGINT NOT NULL,
    side        TEXT   NOT NULL,
    requests    BIGINT NOT NULL,
    failed      BIGINT NOT NULL,
    slow        BIGINT NOT NULL,
    PRIMARY KEY (name, generation, side)
);
