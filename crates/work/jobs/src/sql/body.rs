//! What a lease holds, written small: what jobs have in common once, times as distances.

use std::borrow::Cow;
use std::sync::Arc;

use runtime_kernel::Uuid;
use serde::{Deserialize, Serialize};

use super::row::{Row, Words, json, read};
use crate::error::JobsError;

/// How many of the latest shapes a job is compared with: jobs enqueued together lie together.
const RECENT: usize = 8;

#[derive(Serialize, Deserialize)]
struct Body<'a, R> {
    shapes: Vec<Shape<'a>>,
    /// What the first job is ranked by.
    base: i64,
    rows: Vec<R>,
}

/// What jobs enqueued together have in common. A field added later must have a default.
#[derive(PartialEq, Serialize, Deserialize)]
struct Shape<'a> {
    priority: i32,
    attempt: i32,
    max_attempts: i32,
    allowance: i32,
    claims: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout: Option<i64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    linked: bool,
    queue: Cow<'a, str>,
    kind: Cow<'a, str>,
    tenant: Cow<'a, str>,
    context: Cow<'a, str>,
}

/// Id, rank beyond the base, times beyond the rank and each other, shape, payload.
#[derive(Serialize)]
struct Written<'a>(
    Uuid,
    i64,
    i64,
    i64,
    usize,
    &'a str,
    #[serde(skip_serializing_if = "Keys::is_none")] Keys<'a>,
);

#[derive(Deserialize)]
struct Read<'a>(Uuid, i64, i64, i64, usize, Cow<'a, str>, #[serde(default)] Keys<'a>);

#[derive(Default, Serialize, Deserialize)]
struct Keys<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unique: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit: Option<Cow<'a, str>>,
}

impl Keys<'_> {
    fn is_none(&self) -> bool {
        self.unique.is_none() && self.limit.is_none()
    }
}

pub(super) fn pack(rows: &[Row]) -> Result<String, JobsError> {
    let base = rows.first().map_or(0, |row| row.rank);
    let mut shapes: Vec<Shape<'_>> = Vec::new();
    let mut written = Vec::with_capacity(rows.len());
    for row in rows {
        let shape = Shape::of(row);
        let recent = shapes.len().saturating_sub(RECENT);
        let known = shapes.iter().skip(recent).position(|known| *known == shape).map(|place| recent + place);
        let number = known.unwrap_or_else(|| {
            shapes.push(shape);
            shapes.len() - 1
        });
        let keys = Keys {
            unique: row.unique_key.as_deref().map(Cow::Borrowed),
            limit: row.limit_key.as_deref().map(Cow::Borrowed),
        };
        let (rank, run_at) = (row.rank.wrapping_sub(base), row.run_at.wrapping_sub(row.rank));
        let created_at = row.created_at.wrapping_sub(row.run_at);
        written.push(Written(row.id, rank, run_at, created_at, number, &row.payload, keys));
    }
    json(&Body { shapes, base, rows: written })
}

pub(super) fn unpack(text: &str) -> Result<Vec<Row>, JobsError> {
    let body: Body<'_, Read<'_>> = read(text)?;
    let mut words = Words::default();
    let shapes: Vec<Row> = body.shapes.iter().map(|shape| shape.row(&mut words)).collect();
    let row = |Read(id, rank, run_at, created_at, number, payload, keys): Read<'_>| {
        let shape = shapes.get(number);
        let shape = shape.ok_or_else(|| JobsError::Corrupt(format!("a lease has no shape {number}")))?;
        let rank = body.base.wrapping_add(rank);
        let run_at = rank.wrapping_add(run_at);
        Ok(Row {
            id,
            rank,
            run_at,
            created_at: run_at.wrapping_add(created_at),
            unique_key: keys.unique.map(Cow::into_owned),
            limit_key: keys.limit.map(Cow::into_owned),
            payload: Arc::from(payload),
            ..shape.clone()
        })
    };
    body.rows.into_iter().map(row).collect()
}

impl<'a> Shape<'a> {
    fn of(row: &'a Row) -> Self {
        Self {
            priority: row.priority,
            attempt: row.attempt,
            max_attempts: row.max_attempts,
            allowance: row.allowance,
            claims: row.claims,
            timeout: row.timeout,
            linked: row.linked,
            queue: Cow::Borrowed(&row.queue),
            kind: Cow::Borrowed(&row.kind),
            tenant: Cow::Borrowed(&row.tenant),
            context: Cow::Borrowed(&row.context),
        }
    }

    /// A row of this shape, with nothing of its own yet.
    fn row(&self, words: &mut Words) -> Row {
        Row {
            id: Uuid::nil(),
            rank: 0,
            run_at: 0,
            created_at: 0,
            priority: self.priority,
            attempt: self.attempt,
            max_attempts: self.max_attempts,
            allowance: self.allowance,
            claims: self.claims,
            timeout: self.timeout,
            queue: words.word(&self.queue),
            kind: words.word(&self.kind),
            tenant: words.word(&self.tenant),
            unique_key: None,
            limit_key: None,
            context: words.word(&self.context),
            payload: Arc::from(""),
            turn: false,
            linked: self.linked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked_as_it_was() {
        let mut words = Words::default();
        let row = |n: i64| Row {
            id: Uuid::from_u128(n.cast_unsigned().into()),
            rank: 1_000 - 7 * n,
            run_at: if n == 3 { i64::MIN } else { 50 * n },
            created_at: if n == 4 { i64::MAX } else { n },
            attempt: i32::from(n % 2 == 0),
            timeout: (n % 3 == 0).then_some(n),
            unique_key: (n == 5).then(|| "\"\n".to_owned()),
            limit_key: (n == 6).then(|| "k\\".to_owned()),
            payload: Arc::from(format!("{{\"n\": \"{n}\\\"\"}}")),
            ..Shape {
                priority: -3,
                attempt: 0,
                max_attempts: 25,
                allowance: 25,
                claims: 1,
                timeout: None,
                linked: n % 4 == 1,
                queue: "q".into(),
                kind: if n > 6 { "b".into() } else { "a".into() },
                tenant: "".into(),
                context: "{}".into(),
            }
            .row(&mut words.clone())
        };
        let rows: Vec<Row> = (0..20).map(row).collect();
        assert_eq!(unpack(&pack(&rows).unwrap()).unwrap(), rows);
        let _ = words.word("");
        assert_eq!(unpack(&pack(&[]).unwrap()).unwrap(), []);
    }
}
