use serde_json::json;

use super::*;

/// A protobuf field that holds bytes.
pub(super) fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut len = bytes.len();
    while len >= 0x80 {
        out.push(u8::try_from(len & 0x7F).unwrap() | 0x80);
        len >>= 7;
    }
    out.push(u8::try_from(len).unwrap());
    out.extend(bytes);
    out
}

fn stored(api_version: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
    [PROTOBUF_MAGIC.to_vec(), field(1, &meta), field(2, body), field(3, b""), field(4, b"")]
        .concat()
}

#[test]
fn a_secret() {
    let metadata = [field(1, b"a"), field(2, b""), field(3, b"ns"), field(8, b"")].concat();
    let entry = |k: &[u8], v: &[u8]| field(2, &[field(1, k), field(2, v)].concat());
    let body = [
        field(1, &metadata),
        entry(b"z", b"\xff\0"),
        entry(b"empty", b""),
        field(2, &field(1, b"absent")),
        field(3, b"Opaque"),
        vec![5 << 3, 1],
    ]
    .concat();
    let object = decode(&stored("v1", "Secret", &body)).unwrap();
    assert_eq!(
        object.json,
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "immutable": true,
            "metadata": {"name": "a", "namespace": "ns"},
            "data": {"z": "/wA=", "empty": "", "absent": ""}
        })
    );
    assert_eq!(object.unknown, []);
    assert_eq!(object.encoding, Encoding::Protobuf);
}

#[test]
fn fields_newer_than_the_table_are_reported() {
    let body = [field(1, &field(1, b"a")), field(15, b"new")].concat();
    let object = decode(&stored("v1", "Secret", &body)).unwrap();
    let [unknown] = &object.unknown[..] else { panic!("{:?}", object.unknown) };
    assert_eq!((unknown.path.as_str(), unknown.len, unknown.why), ("#15", 3, Why::UnknownField));
}

#[test]
fn an_unknown_kind_shows_its_metadata() {
    let body = [field(1, &field(1, b"a")), field(2, b"spec")].concat();
    let object = decode(&stored("example.com/v9", "Thing", &body)).unwrap();
    assert_eq!(object.json["metadata"]["name"], "a");
    assert_eq!(object.json["kind"], "Thing");
    assert_eq!(object.unknown[0].why, Why::UnknownKind);
}

#[test]
fn what_is_no_object_says_so_without_its_bytes() {
    assert_eq!(decode(b"hunter2"), Err(DecodeError::NotAnObject { len: 7 }));
    assert_eq!(decode(b""), Err(DecodeError::NotAnObject { len: 0 }));
    assert_eq!(decode(b"k8s:enc:aescbc:v1:k:x"), Err(DecodeError::Encrypted));
    assert_eq!(decode(b"{\"a\": hunter2}"), Err(DecodeError::Json { line: 1, column: 7 }));
    assert_eq!(decode(&[0xD9, 0xD9, 0xF7, 0x01]), Err(DecodeError::Cbor));
    let damaged = stored("v1", "Secret", b"\x0a\xff");
    assert_eq!(decode(&damaged), Err(DecodeError::Protobuf { path: "the object".into() }));
    let nested = stored("v1", "Secret", &field(1, b"\x0a\xff"));
    assert_eq!(decode(&nested), Err(DecodeError::Protobuf { path: "metadata".into() }));
}

#[test]
fn cbor_objects() {
    use ciborium::Value as C;
    let b = |t: &str| C::Bytes(t.as_bytes().to_vec());
    let map = C::Map(vec![
        (b("apiVersion"), b("example.com/v1")),
        (b("kind"), b("Widget")),
        (b("spec"), C::Map(vec![(b("size"), C::Integer(3.into())), (b("f"), C::Float(1.5))])),
    ]);
    let mut bytes = Vec::new();
    ciborium::into_writer(&C::Tag(55799, Box::new(map)), &mut bytes).unwrap();
    let object = decode(&bytes).unwrap();
    assert_eq!(object.kind, "Widget");
    assert_eq!(object.json["spec"], json!({"size": 3, "f": 1.5}));
}

#[test]
fn yaml_objects() {
    let text = "apiVersion: example.com/v1\nkind: Widget\nmetadata:\n  name: w\n  labels:\n    a: \"yes\"\nspec:\n  f: 1.2345675e+06\n  g: 1e+06\n  h: 1e-07\n  i: 9223372036854775807\n  on: true\n  t: |\n    two\n    lines\n";
    let object = decode(text.as_bytes()).unwrap();
    assert_eq!((object.kind.as_str(), object.encoding), ("Widget", Encoding::Yaml));
    assert_eq!(object.json["metadata"]["labels"]["a"], "yes");
    assert_eq!(
        object.json["spec"].to_string(),
        r#"{"f":1234567.5,"g":1000000,"h":1e-7,"i":9223372036854775807,"on":true,"t":"two\nlines\n"}"#
    );
    // The first document is the object.
    let two = format!("---\n{text}---\nkind: Other\n");
    assert_eq!(decode(two.as_bytes()).unwrap().json, object.json);
    // What is written is read.
    let again = yaml::to_string(&object.json);
    assert_eq!(decode(again.as_bytes()).unwrap().json, object.json, "{again}");
}

#[test]
fn numbers_of_cbor_are_printed_as_those_of_json() {
    use ciborium::Value as C;
    let number = |value: C| {
        let map = C::Map(vec![(C::Text("n".into()), value)]);
        let mut bytes = Vec::new();
        ciborium::into_writer(&C::Tag(55799, Box::new(map)), &mut bytes).unwrap();
        decode(&bytes).map(|object| object.json["n"].to_string())
    };
    for (value, printed) in [
        (C::Float(3.0), "3"),
        (C::Float(1e21), "1e+21"),
        (C::Float(1e20), "100000000000000000000"),
        (C::Float(975_096_051.889_732_7), "975096051.8897327"),
        (C::Integer(i64::MIN.into()), "-9223372036854775808"),
    ] {
        assert_eq!(number(value).unwrap(), printed);
    }
    assert_eq!(number(C::Float(f64::NAN)), Err(DecodeError::Cbor));
    assert_eq!(number(C::Float(f64::INFINITY)), Err(DecodeError::Cbor));
}

#[test]
fn debug_shows_no_content() {
    let object = decode(br#"{"apiVersion":"v1","kind":"Secret","data":{"p":"aHVudGVyMg=="}}"#);
    assert!(!format!("{object:?}").contains("aHVudGVyMg"));
}

mod never_panics {
    use proptest::prelude::*;

    use super::super::*;

    proptest! {
        #[test]
        fn on_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200), head in 0..4usize) {
            let start: &[u8] = [PROTOBUF_MAGIC, CBOR_MAGIC, b"{", b""][head];
            let _ = decode(&[start, &bytes].concat());
        }

        #[test]
        fn on_a_damaged_object(at in 0..400usize, byte in any::<u8>()) {
            let body = super::field(1, &[super::field(1, b"a"), super::field(12, &super::field(1, b"k"))].concat());
            let mut value = super::stored("v1", "Pod", &[body, super::field(2, &super::field(2, &super::field(1, b"c")))].concat());
            let at = at % value.len();
            value[at] = byte;
            let _ = decode(&value);
        }
    }
}

#[test]
fn objects_inside_objects_end_somewhere() {
    let inside =
        |value: &[u8]| stored("apps/v1", "ControllerRevision", &field(2, &field(1, value)));
    let nested = |levels: usize| (0..levels).fold(b"{}".to_vec(), |value, _| inside(&value));
    let few = decode(&nested(3)).unwrap();
    assert_eq!(few.json["data"]["data"]["data"], json!({}));
    assert_eq!(few.unknown, []);
    // As many as the largest value that etcd takes holds.
    let many = decode(&nested(20_000)).unwrap();
    assert_eq!(many.unknown.len(), 1);
    assert_eq!(many.unknown[0].why, Why::Opaque);
}
