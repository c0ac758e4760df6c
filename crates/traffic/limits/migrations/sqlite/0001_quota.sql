CREATE TABLE runtime_quota (
    tenant  TEXT    NOT NULL,
    name    TEXT    NOT NULL,
    period  INTEGER NOT NULL,
    used    INTEGER NOT NULL,
    PRIMARY KEY (tenant, name, period)
) STRICT, WITHOUT ROWID;
