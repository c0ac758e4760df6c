//! A statement without its literals, so that equal statements look equal in a log.

/// The statement with every literal and parameter replaced by `?`, comments dropped and white space joined.
///
/// A list of them becomes one `?`, so that `IN (1, 2)` and
/// `IN (1, 2, 3)` are one statement. At most 500 characters are kept.
///
/// ```
/// use runtime_db::fingerprint;
///
/// assert_eq!(
///     fingerprint("SELECT *  FROM t WHERE name = 'O''Hara' AND id IN (1, 2, 3) -- why"),
///     "SELECT * FROM t WHERE name = ? AND id IN (?)",
/// );
/// ```
pub fn fingerprint(sql: &str) -> String {
    let mut scan = Scan { rest: sql, out: String::with_capacity(sql.len().min(LIMIT + 8)) };
    while scan.out.len() < LIMIT && scan.step() {}
    let mut out = scan.out;
    if out.len() > LIMIT {
        let end = (0..=LIMIT).rev().find(|at| out.is_char_boundary(*at)).unwrap_or(0);
        out.truncate(end);
        out.push('…');
    }
    out.truncate(out.trim_end().len());
    out
}

const LIMIT: usize = 500;

struct Scan<'a> {
    rest: &'a str,
    out: String,
}

impl Scan<'_> {
    fn step(&mut self) -> bool {
        let Some(first) = self.rest.chars().next() else { return false };
        if first.is_whitespace() {
            self.space();
            self.rest = self.rest.trim_start();
        } else if self.rest.starts_with("--") {
            self.space();
            self.rest = self.rest.split_once('\n').map_or("", |(_, rest)| rest);
        } else if self.rest.starts_with("/*") {
            self.space();
            self.rest = self.rest.split_once("*/").map_or("", |(_, rest)| rest);
        } else if first == '\'' {
            self.string(self.escaped());
        } else if first == '"' {
            let end = quoted(self.rest, '"', false);
            self.copy(end);
        } else if let Some(end) = dollar_quoted(self.rest) {
            self.rest = self.rest.get(end..).unwrap_or_default();
            self.value();
        } else if first.is_ascii_digit() && !self.in_word() {
            let end = self
                .rest
                .find(|c: char| !(c.is_alphanumeric() || c == '.' || c == '_'))
                .unwrap_or(self.rest.len());
            self.rest = self.rest.get(end..).unwrap_or_default();
            self.value();
        } else if first == '?' || (first == '$' && !self.in_word()) {
            let digits = self.rest.get(1..).unwrap_or_default();
            let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
            self.rest = digits.get(end..).unwrap_or_default();
            self.value();
        } else {
            self.copy(first.len_utf8());
        }
        true
    }

    fn space(&mut self) {
        if !self.out.is_empty() && !self.out.ends_with(' ') {
            self.out.push(' ');
        }
    }

    fn copy(&mut self, end: usize) {
        let (head, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, ""));
        self.out.push_str(head);
        self.rest = rest;
    }

    /// Whether what was written last ends in a word, so that a digit here belongs to a name.
    fn in_word(&self) -> bool {
        self.out.chars().next_back().is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '$' | '"'))
    }

    /// `E'…'` strings escape with a backslash.
    fn escaped(&self) -> bool {
        let mut back = self.out.chars().rev();
        matches!(back.next(), Some('e' | 'E'))
            && !back.next().is_some_and(|c| c.is_alphanumeric() || c == '_')
    }

    fn string(&mut self, escapes: bool) {
        let end = quoted(self.rest, '\'', escapes);
        self.rest = self.rest.get(end..).unwrap_or_default();
        // The prefix of E'…', X'…' and B'…' belongs to the literal.
        let mut back = self.out.chars().rev();
        if matches!(back.next(), Some('e' | 'E' | 'x' | 'X' | 'b' | 'B'))
            && !back.next().is_some_and(|c| c.is_alphanumeric() || c == '_')
        {
            self.out.pop();
        }
        self.value();
    }

    /// Writes `?`, or nothing when one stands before it in the same list.
    fn value(&mut self) {
        let before = self.out.trim_end();
        if let Some(list) = before.strip_suffix(',')
            && list.trim_end().ends_with('?')
        {
            let keep = list.trim_end().len();
            self.out.truncate(keep);
            return;
        }
        self.out.push('?');
    }
}

/// The length of a quoted run, its quotes included; all of it when the quote is never closed.
fn quoted(text: &str, quote: char, escapes: bool) -> usize {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if escapes && c == '\\' {
            chars.next();
        } else if c == quote {
            if chars.peek().is_some_and(|(_, next)| *next == quote) {
                chars.next();
            } else {
                return at + c.len_utf8();
            }
        }
    }
    text.len()
}

/// The length of a `$tag$…$tag$` string of Postgres at the start of the text.
fn dollar_quoted(text: &str) -> Option<usize> {
    let tag_end = text.strip_prefix('$')?.find('$')? + 2;
    let tag = text.get(..tag_end)?;
    let name = tag.trim_matches('$');
    if name.starts_with(|c: char| c.is_ascii_digit())
        || !name.chars().all(|c| c.is_alphanumeric() || c == '_')
    {
        return None;
    }
    let body = text.get(tag_end..)?;
    Some(body.find(tag).map_or(text.len(), |at| tag_end + at + tag.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn literals_leave_and_structure_stays() {
        for (sql, expected) in [
            ("SELECT 1", "SELECT ?"),
            ("SELECT 'a', \"col\" FROM t1", "SELECT ?, \"col\" FROM t1"),
            ("SELECT * FROM t WHERE a = $1 AND b = ?2", "SELECT * FROM t WHERE a = ? AND b = ?"),
            ("INSERT INTO t VALUES ($1, $2, $3)", "INSERT INTO t VALUES (?)"),
            ("INSERT INTO t VALUES (?, ?, ?)", "INSERT INTO t VALUES (?)"),
            ("SELECT E'it\\'s' , X'FF'", "SELECT ?"),
            ("SELECT $tag$ secret 'x' $tag$", "SELECT ?"),
            ("SELECT /* secret */ 1.5e10", "SELECT ?"),
            ("  SELECT\n\t1  ", "SELECT ?"),
            ("SELECT 'never closed", "SELECT ?"),
            ("", ""),
        ] {
            assert_eq!(fingerprint(sql), expected, "{sql}");
        }
    }

    proptest! {
        #[test]
        fn a_string_literal_never_shows(secret in "[A-Z]{6,20}", tail in "[a-z ]{0,10}") {
            let text = fingerprint(&format!("select a from t where b = '{secret}' and {tail}"));
            prop_assert!(!text.contains(&secret), "{}", text);
        }

        #[test]
        fn any_text_is_taken(sql in ".{0,700}") {
            prop_assert!(fingerprint(&sql).chars().count() <= LIMIT + 1);
        }
    }
}
