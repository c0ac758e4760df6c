CREATE TABLE runtime_api_keys (
    id             TEXT    NOT NULL PRIMARY KEY,
    realm          TEXT,
    tenant         TEXT,
    data           TEXT    NOT NULL,
    hash           BLOB    NOT NULL,
    previous_hash  BLOB,
    generation     INTEGER NOT NULL,
    hint           TEXT    NOT NULL,
    rotated_at     INTEGER,
    overlap_until  INTEGER,
    revoked_at     INTEGER,
    revoke_reason  TEXT,
    last_used_at   INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX runtime_api_keys_tenant ON runtime_api_keys (realm, tenant, id);
