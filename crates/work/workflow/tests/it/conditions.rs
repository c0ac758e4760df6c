//! Conditions: what each operator says, and that what cannot be compared is an error with its place.

use runtime_workflow::definition::{Condition, ConditionError, Operator, Test};
use serde_json::{Value, json};

fn entity() -> Value {
    json!({
        "amount": 1500, "rate": 0.5, "big": 9_007_199_254_740_993_u64, "text": "purchase order", "flag": true, "nil": null,
        "tags": ["a", "b"], "none": [], "blank": "", "at": "2026-03-01T10:00:00+01:00",
        "lines": [{ "price": 7 }], "owner": { "id": "ann", "a/b": 1 },
    })
}

fn holds(field: &str, op: &str, value: Value) -> Result<bool, ConditionError> {
    let op: Operator = serde_json::from_value(json!(op)).unwrap();
    Condition::Is(Test { field: field.to_owned(), op, value }).holds(&entity())
}

#[test]
fn each_operator_says_yes_and_no() {
    for (field, op, yes, no) in [
        ("amount", "eq", json!(1500.0), json!(1501)),
        ("flag", "eq", json!(true), json!(false)),
        ("tags", "eq", json!(["a", "b"]), json!(["b", "a"])),
        ("nil", "eq", json!(null), json!(null)),
        ("text", "ne", json!("else"), json!("purchase order")),
        ("amount", "ne", json!(null), json!(1500)),
        ("amount", "gt", json!(1499.5), json!(1500)),
        ("amount", "gte", json!(1500), json!(1501)),
        ("rate", "lt", json!(1), json!(0.5)),
        ("amount", "lte", json!(1500), json!(1499)),
        // As floats these two would be the same.
        ("big", "gt", json!(9_007_199_254_740_992_u64), json!(9_007_199_254_740_993_u64)),
        // Times by their instant, not their letters.
        ("at", "lt", json!("2026-03-01T09:30:00Z"), json!("2026-03-01T08:59:00Z")),
        ("text", "gt", json!("patience"), json!("quorum")),
        ("amount", "between", json!([1500, 1500]), json!([1, 1499])),
        ("text", "in", json!(["x", "purchase order"]), json!(["x"])),
        ("amount", "not_in", json!([1, 2]), json!([1500])),
        ("tags", "contains", json!("a"), json!("z")),
        ("text", "contains", json!("chase"), json!("z")),
        ("tags", "not_contains", json!("z"), json!("b")),
        ("text", "starts_with", json!("purch"), json!("order")),
        ("text", "ends_with", json!("order"), json!("purch")),
        ("text", "matches", json!("^purchase .*r$"), json!("^order")),
        ("lines.0.price", "eq", json!(7), json!(8)),
        ("/owner/a~1b", "eq", json!(1), json!(2)),
    ] {
        assert_eq!(holds(field, op, yes.clone()), Ok(true), "{field} {op} {yes}");
        if field != "nil" {
            assert_eq!(holds(field, op, no.clone()), Ok(false), "{field} {op} {no}");
        }
    }
    for (field, op, expected) in [
        ("amount", "exists", true),
        ("nil", "exists", false),
        ("owner.name", "exists", false),
        ("owner.name", "not_exists", true),
        ("amount", "not_exists", false),
        ("none", "empty", true),
        ("blank", "empty", true),
        ("missing", "empty", true),
        ("tags", "empty", false),
    ] {
        assert_eq!(holds(field, op, Value::Null), Ok(expected), "{field} {op}");
    }
}

#[test]
fn what_cannot_be_compared_is_an_error_that_names_the_field() {
    for (field, op, value, says) in [
        ("missing", "gt", json!(1), "the entity has no `missing`"),
        ("nil", "gt", json!(1), "the entity has no `nil`"),
        ("lines.5.price", "eq", json!(1), "the entity has no `lines.5.price`"),
        ("text", "gt", json!(1), "`text` is a text"),
        ("amount", "eq", json!("1500"), "`amount` is a number"),
        ("amount", "ne", json!("1500"), "`amount` is a number"),
        ("flag", "lt", json!(true), "`flag` is a truth value"),
        ("amount", "in", json!(["1500"]), "`amount` is a number"),
        ("amount", "contains", json!(1), "`amount` is a number"),
        ("tags", "starts_with", json!("a"), "`tags` is a list"),
        ("amount", "matches", json!("1"), "`amount` is a number"),
        ("amount", "empty", Value::Null, "`amount` is a number"),
        ("text", "matches", json!("("), "`matches` cannot use"),
        ("amount", "between", json!([1]), "`between` cannot use"),
    ] {
        let error = holds(field, op, value.clone()).unwrap_err();
        assert!(error.to_string().starts_with(says), "{field} {op} {value}: {error}");
    }
}

#[test]
fn groups_look_no_further_than_they_must() {
    let entity = json!({ "amount": 5 });
    let of = |value: Value| serde_json::from_value::<Condition>(value).unwrap().holds(&entity);
    let (yes, no) = (
        json!({ "is": { "field": "amount", "op": "eq", "value": 5 } }),
        json!({ "is": { "field": "amount", "op": "eq", "value": 6 } }),
    );
    let broken = json!({ "is": { "field": "absent", "op": "gt", "value": 6 } });
    assert_eq!(of(json!({ "all": [yes, { "not": no }] })), Ok(true));
    assert_eq!(of(json!({ "all": [no, broken] })), Ok(false));
    assert_eq!(of(json!({ "any": [yes, broken] })), Ok(true));
    assert_eq!(of(json!({ "any": [no, no] })), Ok(false));
    assert!(of(json!({ "any": [no, broken] })).is_err(), "an unanswered part is never a no");
    assert!(of(json!({ "not": broken })).is_err(), "nor a yes");
}

#[test]
fn there_are_seventeen_operators() {
    let words = "eq ne gt gte lt lte between in not_in contains not_contains starts_with ends_with matches exists \
                 not_exists empty";
    let read = words
        .split_whitespace()
        .map(|word| serde_json::from_value::<Operator>(json!(word)).unwrap().as_str());
    assert_eq!(read.collect::<Vec<_>>(), words.split_whitespace().collect::<Vec<_>>());
    assert_eq!(words.split_whitespace().count(), 17);
}
