//! Everything in the tables of jobs at one moment, and what must hold at every moment.

use std::collections::{BTreeMap, BTreeSet};

use runtime_db::sqlx::{self, AssertSqlSafe, Row as _};
use runtime_db::{Database, Dialect, on_connection};
use runtime_jobs::JobsError;
use runtime_kernel::{Context, Source};
use serde_json::Value;

/// A row of any table: which table, whose, and what else matters of it.
#[derive(Clone, Debug)]
struct Line {
    table: String,
    id: String,
    first: Option<String>,
    second: Option<String>,
    numbers: [i64; 3],
}

/// What every table holds, read by one statement, and so at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot(Vec<Line>);

/// A job in a lease that has not ended.
#[derive(Debug)]
struct Running {
    id: String,
    key: Option<String>,
    unique: Option<String>,
}

impl Snapshot {
    pub(crate) async fn of(db: &Database) -> Result<Self, JobsError> {
        let postgres = db.dialect() == Dialect::Postgres;
        let hex = |column: &str, blob: bool| match (postgres, blob) {
            (true, true) => format!("encode({column}, 'hex')"),
            (true, false) => format!("replace({column}::text, '-', '')"),
            (false, _) => format!("lower(hex({column}))"),
        };
        let (none, zero) = ("CAST(NULL AS TEXT)", "CAST(0 AS BIGINT)");
        let row = |table: &str, name: &str, id: String, first: &str, second: &str, numbers: [&str; 3]| {
            let [a, b, c] = numbers.map(|number| format!("CAST({number} AS BIGINT)"));
            format!("SELECT '{name}' AS t, {id}, {first}, {second}, {a}, {b}, {c} FROM runtime_jobs_{table}")
        };
        let (id, job) = (hex("id", false), hex("job_id", false));
        let mut parts = Vec::new();
        for table in ["ready", "later", "keyed", "awaiting"] {
            parts.push(row(table, table, id.clone(), "limit_key", "unique_key", ["turn", zero, zero]));
        }
        let number = |column: &str| format!("CAST({column} AS TEXT)");
        let group = hex("group_id", false);
        parts.extend([
            row("groups", "group", id.clone(), none, none, ["open", "dead", "cancelled"]),
            row("members", "member", job.clone(), &group, none, [zero; 3]),
            row("waits", "wait", job.clone(), &group, none, [zero; 3]),
            row("finished", "finished", id, "limit_key", "unique_key", ["state", zero, zero]),
            row("leases", "lease", number("id"), "body", &hex("ended", true), [zero; 3]),
            row("slots", "slot", "limit_key".to_owned(), none, none, ["running", "promoted", "parked"]),
            row("cancels", "cancel", job.clone(), &number("lease"), none, [zero; 3]),
            row("progress", "progress", job.clone(), none, none, [zero; 3]),
            row("attempts", "attempt", job.clone(), "outcome", none, ["number", zero, zero]),
            row("unique", "unique", job, "unique_key", none, ["COALESCE(until, 0)", zero, zero]),
            row("pauses", "pause", "queue".to_owned(), none, none, [zero; 3]),
            row("workers", "worker", "worker".to_owned(), none, none, [zero; 3]),
        ]);
        let sql = parts.join(" UNION ALL ");
        let mut tx = db.begin(&Context::new(Source::Internal, &**db.clock())).await?;
        let lines: Result<Vec<Line>, JobsError> = on_connection!(&mut tx, conn => {
            let rows = sqlx::query(AssertSqlSafe(sql.clone())).fetch_all(&mut *conn).await?;
            rows.iter().map(|row| Ok(Line {
                table: row.try_get(0)?,
                id: row.try_get(1)?,
                first: row.try_get(2)?,
                second: row.try_get(3)?,
                numbers: [row.try_get(4)?, row.try_get(5)?, row.try_get(6)?],
            })).collect()
        })?;
        tx.rollback().await?;
        Ok(Self(lines?))
    }

    /// The tables that are not empty, with how much is in them.
    pub(crate) fn left(&self) -> BTreeMap<&str, usize> {
        let mut left = BTreeMap::new();
        for line in &self.0 {
            *left.entry(line.table.as_str()).or_default() += 1;
        }
        left
    }

    fn of_table<'s>(&'s self, table: &'s str) -> impl Iterator<Item = &'s Line> {
        self.0.iter().filter(move |line| line.table == table)
    }

    fn running(&self) -> Vec<Running> {
        let mut running = Vec::new();
        for lease in self.of_table("lease") {
            let body: Value = serde_json::from_str(lease.first.as_deref().unwrap()).unwrap();
            let ended = lease.second.as_deref().unwrap();
            let byte = |n: usize| u8::from_str_radix(&ended[2 * n..2 * n + 2], 16).unwrap();
            for (place, row) in body["rows"].as_array().unwrap().iter().enumerate() {
                if byte(place / 8) & (1 << (place % 8)) == 0 {
                    let key = |field: &str| row[6][field].as_str().map(ToOwned::to_owned);
                    let id = row[0].as_str().unwrap().replace('-', "");
                    running.push(Running { id, key: key("limit"), unique: key("unique") });
                }
            }
        }
        running
    }

    /// What holds whenever nobody is in the middle of a transaction, and for whoever looks even then.
    ///
    /// `most` says how many jobs of a key may run at once.
    pub(crate) fn check(&self, at: &str, most: impl Fn(&str) -> i64) {
        let running = self.running();
        let mut places: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for line in &self.0 {
            if ["ready", "later", "keyed", "awaiting", "finished"].contains(&line.table.as_str()) {
                places.entry(&line.id).or_default().push(&line.table);
            }
        }
        for job in &running {
            places.entry(&job.id).or_default().push("running");
        }
        for (id, places) in &places {
            assert_eq!(places.len(), 1, "{at}: job {id} is in {places:?}");
        }
        self.check_slots(at, &running, most);
        self.check_keys(at, &running);
        self.check_groups(at, &places);
        for cancel in self.of_table("cancel") {
            let lease = self.of_table("lease").find(|lease| Some(&lease.id) == cancel.first.as_ref());
            assert!(lease.is_some(), "{at}: a cancel of a lease that is over: {cancel:?}");
        }
        for table in ["progress", "attempt"] {
            for line in self.of_table(table) {
                assert!(places.contains_key(line.id.as_str()), "{at}: {table} of no job: {line:?}");
            }
        }
    }

    /// A slot counts what is there.
    fn check_slots(&self, at: &str, running: &[Running], most: impl Fn(&str) -> i64) {
        let mut keys: BTreeMap<&str, [i64; 3]> = BTreeMap::new();
        for job in running {
            if let Some(key) = &job.key {
                keys.entry(key).or_default()[0] += 1;
            }
        }
        for (table, column) in [("ready", 1), ("keyed", 2)] {
            for line in self.of_table(table) {
                if let Some(key) = line.first.as_deref().filter(|_| table == "keyed" || line.numbers[0] == 1)
                {
                    keys.entry(key).or_default()[column] += 1;
                }
            }
        }
        for (key, counted) in &keys {
            assert!(counted[0] <= most(key), "{at}: {} jobs of {key:?} run at once", counted[0]);
            let slot = self.of_table("slot").find(|slot| slot.id == *key);
            assert!(slot.is_some() || *counted == [0; 3], "{at}: no slot for {key:?}: {counted:?}");
        }
        for slot in self.of_table("slot") {
            let counted = keys.get(slot.id.as_str()).copied().unwrap_or_default();
            assert_eq!(slot.numbers, counted, "{at}: running, promoted and parked of {:?}", slot.id);
        }
    }

    /// A group counts its members, and whoever waits waits for one.
    fn check_groups(&self, at: &str, places: &BTreeMap<&str, Vec<&str>>) {
        for group in self.of_table("group") {
            let members = self.of_table("member").filter(|member| member.first.as_ref() == Some(&group.id));
            let open = |member: &&Line| places.get(member.id.as_str()).is_some_and(|at| *at != ["finished"]);
            let open = i64::try_from(members.filter(open).count()).unwrap();
            assert_eq!(group.numbers[0], open, "{at}: open in {group:?}");
        }
        let waits: BTreeMap<&str, Option<&str>> =
            self.of_table("wait").map(|wait| (wait.id.as_str(), wait.first.as_deref())).collect();
        for job in self.of_table("awaiting") {
            let group = waits.get(job.id.as_str()).copied().flatten();
            let there = self.of_table("group").any(|there| Some(there.id.as_str()) == group);
            assert!(there, "{at}: waits for nothing: {job:?}");
        }
    }

    /// An unfinished job has its unique key, alone; a finished one has given it up.
    fn check_keys(&self, at: &str, running: &[Running]) {
        let mut open: BTreeMap<&str, &str> = BTreeMap::new();
        for line in &self.0 {
            if let (true, Some(key)) =
                (["ready", "later", "keyed", "awaiting"].contains(&line.table.as_str()), &line.second)
            {
                assert!(open.insert(key, &line.id).is_none(), "{at}: {key:?} is not unique");
            }
        }
        for job in running {
            if let Some(key) = &job.unique {
                assert!(open.insert(key, &job.id).is_none(), "{at}: {key:?} is not unique");
            }
        }
        let holders: BTreeMap<&str, &str> =
            self.of_table("unique").map(|line| (line.first.as_deref().unwrap(), line.id.as_str())).collect();
        for (key, id) in &open {
            assert_eq!(holders.get(key), Some(id), "{at}: {key:?} is not its job's");
        }
        let open: BTreeSet<&str> = open.into_values().collect();
        for line in self.of_table("unique").filter(|line| line.numbers[0] == 0) {
            assert!(open.contains(line.id.as_str()), "{at}: a finished job keeps its key: {line:?}");
        }
    }
}
