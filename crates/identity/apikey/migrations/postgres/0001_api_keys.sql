CREATE TABLE runtime_api_keys (
    id             TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    realm          TEXT,
    tenant         TEXT,
    data           TEXT   NOT NULL,
    hash           BYTEA  NOT NULL,
    previous_hash  BYTEA,
    generation     BIGINT NOT NULL,
    hint           TEXT   NOT NULL,
    rotated_at     BIGINT,
    overlap_until  BIGINT,
    revoked_at     BIGINT,
    revoke_reason  TEXT,
    last_used_at   BIGINT
);
CREATE INDEX runtime_api_keys_tenant ON runtime_api_keys (realm, tenant, id);
