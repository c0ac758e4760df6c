//! Keys in SQLite or Postgres, by the same statements.

use async_trait::async_trait;
use runtime_db::{Database, DbError, sqlx};
use runtime_kernel::{Context, Error, Source, Timestamp};
use sqlx::Row;

use crate::error::KeyError;
use crate::hash::SecretHash;
use crate::key::{ApiKey, KeyId};
use crate::store::{KeyFilter, KeyStore, Rotation, StoredKey};

/// Runs one query on whichever database it is and reads the row, if there is one.
macro_rules! on {
    ($db:expr, $pool:ident, fetch_optional($query:expr)) => {{
        #[cfg(feature = "sqlite")]
        if let Some(pools) = $db.sqlite() {
            let row = $query.fetch_optional(&pools.$pool).await.map_err(failed)?;
            return row.map(|row| sqlite_row(&row)).transpose();
        }
        #[cfg(feature = "postgres")]
        if let Some(pool) = $db.postgres() {
            let row = $query.fetch_optional(pool).await.map_err(failed)?;
            return row.map(|row| postgres_row(&row)).transpose();
        }
        Err(unsupported())
    }};
}

/// Keys in a database that [`crate::migrations`] have prepared.
///
/// What a key is for its whole life rests as one JSON document; what changes (secret, revocation, last use) has
/// columns of its own. Times are microseconds since 1970.
#[derive(Clone, Debug)]
pub struct SqlKeyStore {
    db: Database,
}

impl SqlKeyStore {
    /// Over an open database.
    pub fn new(db: Database) -> Self {
        Self { db }
    }

    fn context(&self) -> Context {
        Context::new(Source::Internal, &**self.db.clock())
    }

    async fn find_row(&self, id: KeyId) -> Result<Option<StoredKey>, KeyError> {
        let (sql, id) = ("SELECT * FROM runtime_api_keys WHERE id = $1", id.to_string());
        on!(self.db, read, fetch_optional(sqlx::query(sql).bind(id)))
    }
}

fn unsupported() -> KeyError {
    failed_db(DbError::Unsupported(
        "API keys have no store for this database: enable the feature `sqlite` or `postgres`",
    ))
}

fn failed(error: sqlx::Error) -> KeyError {
    failed_db(error.into())
}

fn failed_db(error: DbError) -> KeyError {
    KeyError::Store(error.into())
}

const INSERT: &str = "INSERT INTO runtime_api_keys (id, realm, tenant, data, hash, generation, hint) \
     VALUES ($1, $2, $3, $4, $5, $6, $7)";
const INSERT_FIRST: &str = "INSERT INTO runtime_api_keys (id, realm, tenant, data, hash, generation, hint) \
     SELECT $1, $2, $3, $4, $5, $6, $7 WHERE NOT EXISTS (SELECT 1 FROM runtime_api_keys)";
const LIST: &str = "SELECT * FROM runtime_api_keys \
     WHERE id > $1 AND ($2 = 1 OR revoked_at IS NULL) \
     AND (CAST($3 AS TEXT) IS NULL OR realm = $3) AND (CAST($4 AS TEXT) IS NULL OR tenant = $4) \
     ORDER BY id LIMIT $5";
const ROTATE: &str = "UPDATE runtime_api_keys SET \
     previous_hash = CASE WHEN CAST($2 AS BIGINT) IS NULL THEN NULL ELSE hash END, \
     hash = $3, hint = $4, rotated_at = $5, overlap_until = $2, generation = generation + 1 \
     WHERE id = $1 AND generation = $6 AND revoked_at IS NULL RETURNING *";
const REVOKE: &str = "UPDATE runtime_api_keys SET \
     revoke_reason = CASE WHEN revoked_at IS NULL THEN $3 ELSE revoke_reason END, \
     revoked_at = COALESCE(revoked_at, $2) WHERE id = $1 RETURNING *";
const TOUCH: &str = "UPDATE runtime_api_keys SET last_used_at = $2 \
     WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2)";

macro_rules! insert {
    ($sql:expr, $stored:expr, $data:expr) => {
        sqlx::query($sql)
            .bind($stored.key.id.to_string())
            .bind($stored.key.realm.as_ref().map(ToString::to_string))
            .bind($stored.key.tenant.as_ref().map(ToString::to_string))
            .bind($data)
            .bind($stored.hash.as_bytes().to_vec())
            .bind(i64::from($stored.generation))
            .bind($stored.key.hint.clone())
    };
}

/// The answer of an insertion: a taken id is told apart.
fn inserted<T>(id: KeyId, result: Result<T, sqlx::Error>) -> Result<(), KeyError> {
    match result.map_err(DbError::from) {
        Ok(_) => Ok(()),
        Err(DbError::Unique { .. }) => Err(KeyError::Duplicate(id)),
        Err(error) => Err(failed_db(error)),
    }
}

fn document(key: &ApiKey) -> Result<String, KeyError> {
    serde_json::to_string(key).map_err(|error| KeyError::Store(Error::internal(error)))
}

#[async_trait]
impl KeyStore for SqlKeyStore {
    async fn insert(&self, key: &StoredKey) -> Result<(), KeyError> {
        let data = document(&key.key)?;
        #[cfg(feature = "sqlite")]
        if let Some(pools) = self.db.sqlite() {
            return inserted(key.key.id, insert!(INSERT, key, data).execute(&pools.write).await);
        }
        #[cfg(feature = "postgres")]
        if let Some(pool) = self.db.postgres() {
            return inserted(key.key.id, insert!(INSERT, key, data).execute(pool).await);
        }
        Err(unsupported())
    }

    async fn insert_first(&self, key: &StoredKey) -> Result<bool, KeyError> {
        let data = document(&key.key)?;
        let context = self.context();
        let rows = self.db.transaction(&context, async |mut tx| {
            #[cfg(feature = "sqlite")]
            if let Some(conn) = tx.sqlite() {
                // The transaction holds the one writer: nobody else can be between the look and the insertion.
                return Ok(insert!(INSERT_FIRST, key, data.clone())
                    .execute(&mut *conn)
                    .await?
                    .rows_affected());
            }
            #[cfg(feature = "postgres")]
            if let Some(conn) = tx.postgres() {
                // Rows that are not there cannot be locked; the table can.
                sqlx::query("LOCK TABLE runtime_api_keys IN SHARE ROW EXCLUSIVE MODE")
                    .execute(&mut *conn)
                    .await?;
                return Ok(insert!(INSERT_FIRST, key, data.clone())
                    .execute(&mut *conn)
                    .await?
                    .rows_affected());
            }
            Err(DbError::Unsupported("no store for this database"))
        });
        Ok(rows.await.map_err(failed_db)? == 1)
    }

    async fn find(&self, id: KeyId) -> Result<Option<StoredKey>, KeyError> {
        self.find_row(id).await
    }

    async fn list(&self, filter: &KeyFilter) -> Result<Vec<ApiKey>, KeyError> {
        macro_rules! query {
            () => {
                sqlx::query(LIST)
                    .bind(filter.after.map(|id| id.to_string()).unwrap_or_default())
                    .bind(i64::from(filter.revoked))
                    .bind(filter.realm.as_ref().map(ToString::to_string))
                    .bind(filter.tenant.as_ref().map(ToString::to_string))
                    .bind(i64::from(filter.limit()))
            };
        }
        #[cfg(feature = "sqlite")]
        if let Some(pools) = self.db.sqlite() {
            let rows = query!().fetch_all(&pools.read).await.map_err(failed)?;
            return rows.iter().map(|row| Ok(sqlite_row(row)?.key)).collect();
        }
        #[cfg(feature = "postgres")]
        if let Some(pool) = self.db.postgres() {
            let rows = query!().fetch_all(pool).await.map_err(failed)?;
            return rows.iter().map(|row| Ok(postgres_row(row)?.key)).collect();
        }
        Err(unsupported())
    }

    async fn rotate(&self, id: KeyId, rotation: &Rotation) -> Result<ApiKey, KeyError> {
        let update = async {
            macro_rules! query {
                () => {
                    sqlx::query(ROTATE)
                        .bind(id.to_string())
                        .bind(rotation.overlap_until.map(Timestamp::as_microsecond))
                        .bind(rotation.hash.as_bytes().to_vec())
                        .bind(rotation.hint.clone())
                        .bind(rotation.at.as_microsecond())
                        .bind(i64::from(rotation.generation))
                };
            }
            on!(self.db, write, fetch_optional(query!()))
        };
        if let Some(stored) = update.await? {
            return Ok(stored.key);
        }
        // Nothing matched; which of the three conditions failed is only for the message.
        match self.find_row(id).await? {
            None => Err(KeyError::NotFound(id)),
            Some(stored) if stored.key.revoked_at.is_some() => Err(KeyError::Revoked(id)),
            Some(_) => Err(KeyError::Raced(id)),
        }
    }

    async fn revoke(&self, id: KeyId, at: Timestamp, reason: &str) -> Result<ApiKey, KeyError> {
        let update = async {
            macro_rules! query {
                () => {
                    sqlx::query(REVOKE).bind(id.to_string()).bind(at.as_microsecond()).bind(reason.to_owned())
                };
            }
            on!(self.db, write, fetch_optional(query!()))
        };
        update.await?.map(|stored| stored.key).ok_or(KeyError::NotFound(id))
    }

    async fn touch(&self, uses: &[(KeyId, Timestamp)]) -> Result<(), KeyError> {
        let mut uses: Vec<_> = uses.iter().map(|(id, at)| (id.to_string(), at.as_microsecond())).collect();
        // In one order everywhere, so that two processes cannot wait for each other.
        uses.sort_unstable();
        let context = self.context();
        let done = self.db.transaction(&context, async |mut tx| {
            for (id, at) in &uses {
                #[cfg(feature = "sqlite")]
                if let Some(conn) = tx.sqlite() {
                    sqlx::query(TOUCH).bind(id.clone()).bind(*at).execute(&mut *conn).await?;
                    continue;
                }
                #[cfg(feature = "postgres")]
                if let Some(conn) = tx.postgres() {
                    sqlx::query(TOUCH).bind(id.clone()).bind(*at).execute(&mut *conn).await?;
                }
            }
            Ok::<_, DbError>(())
        });
        done.await.map_err(failed_db)
    }
}

macro_rules! reader {
    ($name:ident, $row:ty) => {
        fn $name(row: &$row) -> Result<StoredKey, KeyError> {
            let read = || -> Result<Columns, sqlx::Error> {
                Ok(Columns {
                    data: row.try_get("data")?,
                    hash: row.try_get("hash")?,
                    previous_hash: row.try_get("previous_hash")?,
                    generation: row.try_get("generation")?,
                    hint: row.try_get("hint")?,
                    rotated_at: row.try_get("rotated_at")?,
                    overlap_until: row.try_get("overlap_until")?,
                    revoked_at: row.try_get("revoked_at")?,
                    revoke_reason: row.try_get("revoke_reason")?,
                    last_used_at: row.try_get("last_used_at")?,
                })
            };
            read().map_err(failed)?.into_stored()
        }
    };
}

#[cfg(feature = "sqlite")]
reader!(sqlite_row, sqlx::sqlite::SqliteRow);
#[cfg(feature = "postgres")]
reader!(postgres_row, sqlx::postgres::PgRow);

struct Columns {
    data: String,
    hash: Vec<u8>,
    previous_hash: Option<Vec<u8>>,
    generation: i64,
    hint: String,
    rotated_at: Option<i64>,
    overlap_until: Option<i64>,
    revoked_at: Option<i64>,
    revoke_reason: Option<String>,
    last_used_at: Option<i64>,
}

impl Columns {
    fn into_stored(self) -> Result<StoredKey, KeyError> {
        let broken = || KeyError::Store(Error::internal("a row of runtime_api_keys cannot be read"));
        let time =
            |micros: Option<i64>| micros.map(Timestamp::from_microsecond).transpose().map_err(|_| broken());
        let hash = |bytes: Vec<u8>| bytes.try_into().map(SecretHash::from_bytes).map_err(|_| broken());
        let mut key: ApiKey = serde_json::from_str(&self.data).map_err(|_| broken())?;
        key.hint = self.hint;
        key.rotated_at = time(self.rotated_at)?;
        key.overlap_until = time(self.overlap_until)?;
        key.revoked_at = time(self.revoked_at)?;
        key.revoke_reason = self.revoke_reason;
        key.last_used_at = time(self.last_used_at)?;
        let generation = u32::try_from(self.generation).map_err(|_| broken())?;
        Ok(StoredKey {
            key,
            hash: hash(self.hash)?,
            previous: self.previous_hash.map(hash).transpose()?,
            generation,
        })
    }
}
