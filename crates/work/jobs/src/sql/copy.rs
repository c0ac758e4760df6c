//! Many rows at once into Postgres: `COPY` in its binary format.
//!
//! Source: PostgreSQL's documentation of `COPY`, "Binary Format".

use std::borrow::Borrow;

use runtime_db::PgConn;
use runtime_db::sqlx::postgres::PgConnection;

use super::row::{COLUMNS, Columns, End, FINISHED, Row, state_number};
use crate::error::JobsError;

/// What is sent at once: a copy of any size needs no more memory than this, and the server works while more is made.
const CHUNK: usize = 64 * 1024;

const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// [`Columns::Plain`].
const PLAIN: &str = "id, lane, rank, run_at, created_at, priority, max_attempts, allowance, queue, kind, tenant, context, payload";

/// Copies waiting jobs into a table.
pub(super) async fn waiting<R: Borrow<Row>>(
    conn: &mut PgConn,
    table: &str,
    columns: Columns,
    rows: impl Iterator<Item = R>,
) -> Result<(), JobsError> {
    let plain = columns == Columns::Plain;
    let names = if plain { PLAIN } else { COLUMNS };
    let sql = format!("COPY {table} ({names}) FROM STDIN (FORMAT binary)");
    send(conn, sql, rows, |out, row| {
        let row: &Row = row.borrow();
        out.fields(if plain { 13 } else { 19 });
        out.bytes(row.id.as_bytes());
        out.long(row.lane());
        out.long(row.rank);
        if plain {
            out.long(row.run_at);
            out.long(row.created_at);
            for number in [row.priority, row.max_attempts, row.allowance] {
                out.int(number);
            }
            for text in [&row.queue, &row.kind, &row.tenant, &row.context, &row.payload] {
                out.bytes(text.as_bytes());
            }
        } else {
            rest(out, row);
            out.int(row.marks());
        }
    })
    .await
}

/// Copies finished jobs.
pub(super) async fn finished(conn: &mut PgConn, rows: &[(&Row, End)]) -> Result<(), JobsError> {
    let sql = format!("COPY runtime_jobs_finished ({FINISHED}) FROM STDIN (FORMAT binary)");
    send(conn, sql, rows.iter(), |out, (row, end)| {
        out.fields(21);
        out.bytes(row.id.as_bytes());
        out.int(state_number(end.state));
        out.long(end.at);
        out.long_or_null(end.started);
        out.text_or_null(end.worker.as_deref());
        out.text_or_null(end.result.as_deref());
        rest(out, row);
    })
    .await
}

fn rest(out: &mut Out, row: &Row) {
    out.long(row.run_at);
    out.long(row.created_at);
    for number in [row.priority, row.attempt, row.max_attempts, row.allowance, row.claims] {
        out.int(number);
    }
    out.long_or_null(row.timeout);
    for text in [&row.queue, &row.kind, &row.tenant] {
        out.bytes(text.as_bytes());
    }
    out.text_or_null(row.unique_key.as_deref());
    out.text_or_null(row.limit_key.as_deref());
    out.bytes(row.context.as_bytes());
    out.bytes(row.payload.as_bytes());
}

async fn send<T>(
    conn: &mut PgConn,
    sql: String,
    rows: impl Iterator<Item = T>,
    mut write: impl FnMut(&mut Out, T),
) -> Result<(), JobsError> {
    let conn: &mut PgConnection = conn;
    let mut copy = conn.copy_in_raw(&sql).await?;
    let mut out = Out(Vec::with_capacity(CHUNK));
    out.0.extend_from_slice(HEADER);
    for row in rows {
        write(&mut out, row);
        if out.0.len() >= CHUNK {
            copy.send(out.0.as_slice()).await?;
            out.0.clear();
        }
    }
    out.0.extend_from_slice(&(-1_i16).to_be_bytes());
    copy.send(out.0.as_slice()).await?;
    copy.finish().await?;
    Ok(())
}

/// A tuple being written.
struct Out(Vec<u8>);

impl Out {
    fn fields(&mut self, count: i16) {
        self.0.extend_from_slice(&count.to_be_bytes());
    }

    /// A field above the format's 2 GiB cannot occur: payloads are limited far below.
    fn bytes(&mut self, bytes: &[u8]) {
        let length = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(bytes);
    }

    fn null(&mut self) {
        self.0.extend_from_slice(&(-1_i32).to_be_bytes());
    }

    fn int(&mut self, number: i32) {
        self.bytes(&number.to_be_bytes());
    }

    fn long(&mut self, number: i64) {
        self.bytes(&number.to_be_bytes());
    }

    fn long_or_null(&mut self, number: Option<i64>) {
        match number {
            Some(number) => self.long(number),
            None => self.null(),
        }
    }

    fn text_or_null(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.bytes(text.as_bytes()),
            None => self.null(),
        }
    }
}
