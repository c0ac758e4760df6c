//! What every writer keeps to, whatever is behind it.
//!
//! A law panics when it is broken. `read` reads back every event that is on record, in order.

#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "laws are tests")]

use std::future::Future;

use runtime_kernel::{Context, Name, Principal, PrincipalKind, Source, SystemClock, TenantContext, uuid_v7};
use serde_json::json;

use crate::{AuditEvent, AuditWriter, Durability, Outcome, Severity};

/// Runs every law on a writer with nothing on record.
pub async fn all<W, F, R>(writer: &W, mut read: F)
where
    W: AuditWriter,
    F: FnMut() -> R,
    R: Future<Output = Vec<AuditEvent>>,
{
    let mut expected = Vec::new();
    nothing_is_nothing(writer).await;
    assert_eq!(read().await, expected);
    whole_and_in_order(writer, &mut expected).await;
    assert_eq!(read().await, expected);
    durable_is_on_record_at_once(writer, &mut expected).await;
    assert_eq!(read().await, expected);
    any_text_is_kept(writer, &mut expected).await;
    assert_eq!(read().await, expected);
}

/// Writing no events writes nothing, and flushing nothing works.
async fn nothing_is_nothing<W: AuditWriter>(writer: &W) {
    writer.write(&[], Durability::Durable).await.unwrap();
    writer.flush().await.unwrap();
}

/// Every field comes back; batches follow one another.
async fn whole_and_in_order<W: AuditWriter>(writer: &W, expected: &mut Vec<AuditEvent>) {
    for size in [1, 3, 100] {
        let batch: Vec<_> = (0..size).map(|number| full(&format!("law.{size}.{number}"))).collect();
        writer.write(&batch, Durability::Buffered).await.unwrap();
        expected.extend(batch);
    }
    writer.flush().await.unwrap();
}

/// A durable write needs no flush to be read.
async fn durable_is_on_record_at_once<W: AuditWriter>(writer: &W, expected: &mut Vec<AuditEvent>) {
    let event = full("law.durable");
    writer.write(std::slice::from_ref(&event), Durability::Durable).await.unwrap();
    expected.push(event);
}

/// Line breaks, quotes, control characters and any alphabet come back as they were.
async fn any_text_is_kept<W: AuditWriter>(writer: &W, expected: &mut Vec<AuditEvent>) {
    for text in
        ["", "two\nlines\r\n", "\"quoted\\\"", "tab\tnull\u{0}bell\u{7}", "pässwörd ✓ 漢字 🦀", "{\"a\":1}"]
    {
        let mut event = full("law.text");
        event.message = Some(text.to_owned());
        event.meta.insert(text.to_owned(), json!(text));
        writer.write(std::slice::from_ref(&event), Durability::Durable).await.unwrap();
        expected.push(event);
    }
}

fn full(action: &str) -> AuditEvent {
    let mut principal = Principal::new(PrincipalKind::Service, "key-1");
    principal.realm = Name::new("main").ok();
    let tenant = TenantContext::tenant(Name::new("main").unwrap(), Name::new("acme").unwrap());
    let context = Context::new(Source::Http, &SystemClock).with_principal(principal).with_tenant(tenant);
    let mut event = AuditEvent::new(action.to_owned())
        .context(&context)
        .target("job", "42")
        .severity(Severity::Warning)
        .outcome(Outcome::Denied)
        .message("words")
        .meta("nested", json!({"list": [1, 2.5, null, true, "x"]}));
    event.id = uuid_v7(&SystemClock);
    event
}
