CREATE TABLE runtime_quota (
    tenant  TEXT COLLATE "C" NOT NULL,
    name    TEXT COLLATE "C" NOT NULL,
    period  BIGINT NOT NULL,
    used    BIGINT NOT NULL,
    PRIMARY KEY (tenant, name, period)
);
