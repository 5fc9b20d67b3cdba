// Short inputs, built once.
#![allow(clippy::format_collect)]

use super::*;
use crate::hex::hex;

const SEALED: &[u8] = b"k8s:enc:aescbc:v1:key1:\xe9ar\xa4;,|@\n'\"\\\x00\xff|x";
const JSON: &[u8] = br#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"}}"#;

/// Form, keys and the first reading of each value.
fn parts(input: &[u8]) -> (Form, Vec<(Option<Vec<u8>>, Vec<u8>)>) {
    let (form, all) = read(input, None).unwrap_or_else(|e| panic!("{}: {e}", input.escape_ascii()));
    (form, all.into_iter().map(|p| (p.key.clone(), p.readings[0].value.to_vec())).collect())
}

fn one(input: &[u8]) -> (Form, Option<Vec<u8>>, Vec<u8>) {
    let (form, mut all) = parts(input);
    assert_eq!(all.len(), 1, "{}", input.escape_ascii());
    let (key, value) = all.remove(0);
    (form, key, value)
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[test]
fn a_value_is_never_touched() {
    let yaml = b"apiVersion: v1\nkind: Secret\nmetadata:\n  name: a\n".as_slice();
    for value in [
        SEALED,
        b"k8s:enc:aescbc:v1:k:\n\n",
        b"k8s\0\x0a\x00\r\n",
        JSON,
        yaml,
        b" \n{\"kind\":\"A\",\"apiVersion\":\"b\"}\r\n",
    ] {
        assert_eq!(one(value), (Form::Value, None, value.to_vec()));
    }
}

#[test]
fn what_a_program_or_a_terminal_added_is_a_further_reading() {
    let readings = |input: &[u8]| -> Vec<(Vec<u8>, bool)> {
        let (_, all) = read(input, None).unwrap();
        all[0].readings.iter().map(|r| (r.value.to_vec(), r.carriage_returns)).collect()
    };
    let p = |tail: &[u8]| [b"k8s:enc:x:", tail].concat();
    assert_eq!(readings(&p(b"a")), [(p(b"a"), false)]);
    assert_eq!(readings(&p(b"a\n")), [(p(b"a\n"), false), (p(b"a"), false)]);
    assert_eq!(readings(&p(b"a\nb\r\n")).len(), 2, "one line feed stands alone: no terminal");
    assert_eq!(
        readings(&p(b"a\r\r\nb\r\n")),
        [
            (p(b"a\r\r\nb\r\n"), false),
            (p(b"a\r\r\nb\r"), false),
            (p(b"a\r\nb\n"), true),
            (p(b"a\r\nb"), true)
        ]
    );
    let lines = b"/registry/a/b\r\nk8s:enc:x:a\r\nb\r\n";
    assert_eq!(readings(lines), [(p(b"a\nb\n"), true), (p(b"a\nb"), true)]);
    assert!(read(b"/registry/a/b\r\nk8s:enc:x:a\nb\r\n", None).is_err());
}

#[test]
fn etcdctl_in_json() {
    let kv = format!(
        r#"{{"key":"{}","create_revision":4,"mod_revision":"7","version":2,"value":"{}"}}"#,
        base64(b"/a/b"),
        base64(SEALED)
    );
    let expected = (Form::EtcdctlJson, Some(b"/a/b".to_vec()), SEALED.to_vec());
    for input in [
        format!(r#"{{"header":{{"cluster_id":1,"revision":9}},"kvs":[{kv}],"count":1}}"#),
        format!(r#"{{"kvs":[{kv}]}}"#),
        format!("[{kv}]"),
        format!(" {kv}\r\n"),
    ] {
        assert_eq!(one(input.as_bytes()), expected, "{input}");
    }
    let (_, all) = read(kv.as_bytes(), None).unwrap();
    assert_eq!((all[0].create_revision, all[0].mod_revision, all[0].version), (4, 7, 2));
    assert_eq!(parts(format!("{kv}\n{kv}\n").as_bytes()).1.len(), 2, "jq '.kvs[]'");
    let values = format!(r#"["{0}","{0}"]"#, base64(SEALED));
    assert_eq!(parts(values.as_bytes()).1, [(None, SEALED.to_vec()), (None, SEALED.to_vec())]);
    // Numbers and names of etcd inside an object make no answer of etcd of it.
    let object = br#"{"kind":"Widget","apiVersion":"e.com/v1","header":{"cluster_id":1},"kvs":[],"key":"a","value":"b"}"#;
    assert_eq!(one(object), (Form::Value, None, object.to_vec()));
}

#[test]
fn etcdctl_in_fields() {
    let quoted = r#""k8s:enc:aescbc:v1:key1:\xe9ar\xa4;,|@\n'\"\\\x00\xff|x""#;
    let whole = format!(
        "\"ClusterID\" : 1\n\"Key\" : \"/a/b\"\n\"CreateRevision\" : 5\n\"ModRevision\" : 6\n\"Version\" : 1\n\"Value\" : {quoted}\n\"Lease\" : 0\n\"More\" : false\n\"Count\" : 1\n"
    );
    let expected = (Form::EtcdctlFields, Some(b"/a/b".to_vec()), SEALED.to_vec());
    assert_eq!(one(whole.as_bytes()), expected);
    assert_eq!(one(whole.replace('\n', "\r\n").as_bytes()), expected);
    assert_eq!(parts(whole.repeat(2).as_bytes()).1.len(), 2);
    let line = format!("  \"Value\" : {quoted}\n");
    assert_eq!(one(line.as_bytes()), (Form::EtcdctlFields, None, SEALED.to_vec()));
    assert_eq!(one(quoted.as_bytes()), (Form::Quoted, None, SEALED.to_vec()));
    for cut in [&line[..40], &whole[..whole.len() - 60], &quoted[..30], "\"Key\" : \"/a\"\n"] {
        assert!(read(cut.as_bytes(), None).is_err(), "{cut}");
    }
    assert_eq!(
        *text::go_unquoted(br#""\u00e9\101\a\t\U0001F600""#).unwrap(),
        "éA\u{7}\t😀".as_bytes()
    );
    for wrong in [r#""\x4""#, r#""\8""#, r#""a"b""#, r#""\q""#, r#""\"#, r#"""a"#, r#""\xé""#] {
        assert_eq!(text::go_unquoted(wrong.as_bytes()), None, "{wrong}");
    }
}

#[test]
fn dumps_and_digits() {
    let input = [b"/registry/secrets/default/db\n", SEALED, b"\n"].concat();
    let lines = |input: &[u8], format: &dyn Fn(usize, &[u8]) -> String| -> String {
        input.chunks(16).enumerate().map(|(i, row)| format(i * 16, row)).collect()
    };
    let canonical = |at: usize, row: &[u8]| {
        let text: Vec<String> = row
            .chunks(8)
            .map(|h| h.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" "))
            .collect();
        format!("{at:08x}  {:<48}  |{}|\n", text.join("  "), "|".repeat(row.len()))
    };
    let xxd = |at: usize, row: &[u8]| {
        let text: Vec<String> = row.chunks(2).map(hex).collect();
        format!("{at:08x}: {:<39}  {}\n", text.join(" "), "a  b".repeat(4))
    };
    let expected =
        (Form::HexDump, Some(b"/registry/secrets/default/db".to_vec()), [SEALED, b"\n"].concat());
    let end = format!("{:08x}\n", input.len());
    let dump = lines(&input, &canonical) + &end;
    assert_eq!(one(dump.as_bytes()), expected);
    assert_eq!(one(dump.replace('\n', "\r\n").as_bytes()), expected);
    assert_eq!(one(lines(&input, &xxd).as_bytes()), expected);
    // A line in the middle is gone, the first is, the last is shorter than the dump says.
    let without = |n: usize| {
        dump.lines()
            .enumerate()
            .filter(|(i, _)| *i != n)
            .map(|(_, l)| format!("{l}\n"))
            .collect::<String>()
    };
    for n in [0, 1, dump.lines().count() - 2] {
        assert!(read(without(n).as_bytes(), None).is_err(), "line {n}");
    }
    // Equal lines are written once.
    let long = [b"k8s:enc:x:123456".as_slice(), &[7; 64], b"end"].concat();
    let folded = format!(
        "{}{}*\n{}{:08x}\n",
        canonical(0, &long[..16]),
        canonical(16, &long[16..32]),
        canonical(80, &long[80..]),
        long.len()
    );
    assert_eq!(one(folded.as_bytes()), (Form::HexDump, None, long));

    let digits = hex(SEALED);
    let wrapped: String =
        digits.as_bytes().chunks(60).map(|l| format!("{}\n", l.escape_ascii())).collect();
    let escaped: String = SEALED.iter().map(|b| format!("\\x{b:02x}")).collect();
    for text in [
        digits.clone(),
        digits.to_uppercase() + "\n",
        wrapped,
        format!("\\x{digits}"),
        format!("0x{digits}\r\n"),
        escaped,
    ] {
        assert_eq!(one(text.as_bytes()), (Form::Hex, None, SEALED.to_vec()), "{text}");
    }
    assert_eq!(parts(format!("{digits}\n{digits}\n").as_bytes()).1.len(), 2, "rows of hex(value)");
    assert!(read(b"0000000 722f 6765 7369\n", None).err().unwrap().give.contains("hexdump -C"));
}

#[test]
fn base64_in_its_dresses() {
    let text = base64(SEALED);
    let wrapped: String =
        text.as_bytes().chunks(20).map(|l| format!("{}\r\n", l.escape_ascii())).collect();
    for input in [text.clone(), format!("{text}\n"), wrapped, text.trim_end_matches('=').to_owned()]
    {
        assert_eq!(one(input.as_bytes()), (Form::Base64, None, SEALED.to_vec()), "{input}");
    }
    assert_eq!(
        one(format!("\"{text}\"\n").as_bytes()),
        (Form::QuotedBase64, None, SEALED.to_vec())
    );
    assert_eq!(one(base64(JSON).as_bytes()), (Form::Base64, None, JSON.to_vec()));
}

#[test]
fn rows_of_kine() {
    let name = Some(b"/registry/secrets/default/db".to_vec());
    let literal = format!("X'{}'", hex(SEALED));
    for (input, key) in [
        (format!("{literal}\n"), None),
        (literal.to_lowercase(), None),
        (
            format!("3,'/registry/secrets/default/db',0,0,1,2,0,{literal},X'6b387300'\n"),
            name.clone(),
        ),
        (
            format!(
                "INSERT INTO kine VALUES(3,'/registry/secrets/default/db',0,0,1,2,0,{literal},NULL);\n"
            ),
            name.clone(),
        ),
        (format!("/registry/secrets/default/db|{literal}\n"), name.clone()),
        (format!("/registry/secrets/default/db|{}\n", hex(SEALED)), name.clone()),
    ] {
        assert_eq!(one(input.as_bytes()), (Form::SqlLiteral, key, SEALED.to_vec()), "{input}");
    }
    assert_eq!(parts(format!("{literal}\nNULL\n{literal}\n").as_bytes()).1.len(), 2);
    let row = [b"3|/registry/secrets/default/db|0|0|1|2|0|".as_slice(), SEALED].concat();
    let (form, all) = read(&[&row, b"|\n".as_slice()].concat(), None).unwrap();
    assert_eq!(form, Form::SqlRow);
    assert_eq!((all[0].mod_revision, all[0].create_revision), (3, 1));
    assert_eq!(*all[0].readings[0].value, SEALED);
    let (_, all) = read(&[&row, b"|k8s:enc:a|b\n".as_slice()].concat(), None).unwrap();
    assert!(all[0].readings.iter().any(|r| *r.value == SEALED));
}

#[test]
fn anything_else_is_named() {
    for (input, looks) in [
        (b"hello".as_slice(), "text of 5 bytes"),
        (b"\xff\xfe\x00", "3 bytes that begin as no stored value"),
        (b" k8s:enc:aescbc:v1:k:xx", "begins at byte 1"),
        (br#"{"health":"true"}"#, "lacks apiVersion or kind"),
        (br#"{"header":{"cluster_id":1}}"#, "without any entry"),
        (b"[]", "without any entry"),
        (br#"{"key":"L2E=","mod_revision":1}"#, "without a value"),
        (b"/registry/a\n\n/registry/b\n\n", "keys without values"),
        (b"{\"header\":", "malformed JSON"),
        (b"\"hello\"", "spells no stored value"),
        (b"aGVsbG8gd29ybGQgaGVsbG8gd29ybGQ=", "base64 of"),
        (b"68656c6c6f", "hexadecimal digits of 5 bytes"),
        (b"X'68656c6c6f'", "spell no stored value"),
        (b"\x1f\x8b\x08", "packed by gzip"),
        (b"SQLite format 3\0", "SQLite"),
        (b"Error: context deadline exceeded", "an error message"),
    ] {
        let error = read(input, None).map(|(form, _)| form).unwrap_err();
        assert!(error.looks.contains(looks), "{}: {error}", input.escape_ascii());
        assert!(!error.give.is_empty());
    }
}
