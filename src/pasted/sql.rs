//! Rows and values of kine's table as sqlite3 prints them (columns: k3s-io/kine
//! `pkg/drivers/sqlite/sqlite.go`).

use super::{Form, NotAValue, Pasted, dump};

type Read = Result<(Form, Vec<Pasted>), NotAValue>;

const INSTEAD: &str =
    "give what `select quote(value) from kine where …` or `select hex(value) …` prints";

/// A literal `X'…'`, a row of literals (`sqlite3 -quote`, `.dump`), a row of `select *`, or a key
/// and a value (`select name, quote(value)`).
pub(super) fn read(input: &[u8]) -> Option<Read> {
    let first = input.split(|b| *b == b'\n').next()?.trim_ascii();
    if literals(first).is_some() {
        let lines = input.split(|b| *b == b'\n').map(<[u8]>::trim_ascii);
        let values: Vec<Pasted> = lines
            .filter(|line| !line.is_empty() && !line.eq_ignore_ascii_case(b"null"))
            .map(|line| row(&literals(line)?))
            .collect::<Option<_>>()
            .unwrap_or_default();
        return Some(if values.is_empty() {
            Err(NotAValue::new("SQL literals that spell no stored value", INSTEAD))
        } else {
            Ok((Form::SqlLiteral, values))
        });
    }
    if let Some(one) = named(input) {
        return Some(Ok((Form::SqlLiteral, one)));
    }
    kine_row(input).map(|one| Ok((Form::SqlRow, vec![one])))
}

/// A literal of SQL.
enum Literal {
    Number(i64),
    Text(Vec<u8>),
    Blob(Vec<u8>),
    Null,
}

/// The literals of `X'00',1,'a',NULL` or `INSERT INTO kine VALUES(…);`, at least one a blob.
fn literals(line: &[u8]) -> Option<Vec<Literal>> {
    let mut rest = line;
    if line.get(..6).is_some_and(|w| w.eq_ignore_ascii_case(b"insert")) {
        let open = memchr::memchr(b'(', line)?;
        rest = line[open + 1..].strip_suffix(b");")?;
    }
    let mut all = Vec::new();
    loop {
        let (literal, after) = literal(rest)?;
        all.push(literal);
        match after {
            [] => break,
            [b',', more @ ..] => rest = more,
            _ => return None,
        }
    }
    all.iter().any(|l| matches!(l, Literal::Blob(_))).then_some(all)
}

fn literal(text: &[u8]) -> Option<(Literal, &[u8])> {
    match text {
        [b'X' | b'x', b'\'', rest @ ..] => {
            let end = memchr::memchr(b'\'', rest)?;
            let bytes = if end == 0 { Vec::new() } else { dump::digits_of(&rest[..end])? };
            Some((Literal::Blob(bytes), &rest[end + 1..]))
        }
        [b'\'', rest @ ..] => {
            let mut out = Vec::new();
            let mut rest = rest;
            loop {
                let end = memchr::memchr(b'\'', rest)?;
                out.extend_from_slice(&rest[..end]);
                rest = &rest[end + 1..];
                // A quote inside is written twice.
                let Some(more) = rest.strip_prefix(b"'") else { break };
                out.push(b'\'');
                rest = more;
            }
            Some((Literal::Text(out), rest))
        }
        _ => {
            let end = memchr::memchr(b',', text).unwrap_or(text.len());
            let (word, rest) = text.split_at(end);
            if word.eq_ignore_ascii_case(b"null") {
                return Some((Literal::Null, rest));
            }
            Some((Literal::Number(std::str::from_utf8(word).ok()?.parse().ok()?), rest))
        }
    }
}

/// The value of a row: alone, after its key, or with all nine columns.
fn row(literals: &[Literal]) -> Option<Pasted> {
    let spelt = |bytes: &[u8], key: Option<&Vec<u8>>| {
        let mut one = super::spelt(bytes)?;
        one.key = key.cloned().or(one.key);
        Some(one)
    };
    match literals {
        [
            Literal::Number(id),
            Literal::Text(name),
            _,
            _,
            Literal::Number(created),
            _,
            _,
            Literal::Blob(value),
            ..,
        ] => Some(Pasted {
            mod_revision: *id,
            create_revision: if *created == 0 { *id } else { *created },
            ..spelt(value, Some(name))?
        }),
        [.., Literal::Text(name), Literal::Blob(value)] => spelt(value, Some(name)),
        [Literal::Blob(value), Literal::Blob(_) | Literal::Null, ..]
        | [.., Literal::Blob(value)] => spelt(value, None),
        _ => None,
    }
}

/// Lines of `/registry/…|6B38…` and `/registry/…|X'6b38…'`.
fn named(input: &[u8]) -> Option<Vec<Pasted>> {
    let lines = input.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).filter(|l| !l.is_empty());
    lines
        .map(|line| {
            let (name, value) = line.split_at(memchr::memrchr(b'|', line)?);
            let value = &value[1..];
            let mut one = match literals(value) {
                Some(literals) => row(&literals)?,
                None => dump::hex(value)?,
            };
            if name.first() != Some(&b'/') || std::str::from_utf8(name).is_err() {
                return None;
            }
            one.key = Some(name.to_vec());
            Some(one)
        })
        .collect()
}

/// `1|/registry/…|1|0|0|0|0|VALUE|OLD VALUE`: one row of `select * from kine`, whose values stand
/// as they are, so that where the first one ends is known from what follows it only.
fn kine_row(input: &[u8]) -> Option<Pasted> {
    let mut rest = input;
    let mut columns = Vec::new();
    for _ in 0..7 {
        let end = memchr::memchr(b'|', rest)?;
        columns.push(std::str::from_utf8(&rest[..end]).ok()?);
        rest = &rest[end + 1..];
    }
    let number = |text: &str| text.parse::<i64>().ok();
    let id = number(columns[0])?;
    let created = number(columns[4])?;
    if !columns[1].starts_with('/') || columns[2..].iter().any(|c| number(c).is_none()) {
        return None;
    }
    let mut one = Pasted {
        mod_revision: id,
        create_revision: if created == 0 { id } else { created },
        ..Pasted::exact(Some(columns[1].as_bytes().to_vec()), Vec::new())
    };
    one.readings.clear();
    for bar in memchr::memrchr_iter(b'|', rest) {
        let old = rest[bar + 1..].trim_ascii();
        if old.is_empty() || super::is_value(old) {
            one.add(&rest[..bar], false);
        }
    }
    if one.readings.is_empty() {
        one.add(rest, false);
    }
    Some(one)
}
