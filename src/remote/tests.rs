use std::path::Path;

use super::error::Scrubber;
use super::{Address, RemoteError};

fn shown(text: &str) -> String {
    Address::parse(text).unwrap().unwrap().shown().to_owned()
}

#[test]
fn what_is_secret_in_an_address_is_not_shown() {
    for (text, expected) in [
        ("s3://bucket/a?b", "s3://bucket/a?b"),
        ("S3://bucket", "s3://bucket"),
        ("https://h/a.db?X-Amz-Signature=x", "https://h/a.db?…"),
        ("https://user:pass@h:8443/a/b", "https://…@h:8443/a/b"),
        ("https://h?sig=x", "https://h?…"),
        ("https://h/a#x", "https://h/a?…"),
    ] {
        assert_eq!(shown(text), expected);
        assert_eq!(format!("{:?}", Address::parse(text).unwrap().unwrap()), expected);
    }
    for path in ["a.db", "/a/b", "./s3:/x", "://x", "a b://x"] {
        assert!(Address::of(Path::new(path)).is_none(), "{path}");
    }
    let refused = Address::parse("http://user:pass@h/a?sig=x").unwrap().unwrap_err();
    let RemoteError::Address { shown, .. } = &refused else { panic!() };
    assert_eq!(shown, "http://…@h/a?…");
}

#[test]
fn names_are_those_of_files() {
    for (text, expected) in [("s3://b/a/b.db", "b.db"), ("https://h/c/d.gz?x=/y", "d.gz")] {
        assert_eq!(Address::parse(text).unwrap().unwrap().name(), expected);
    }
}

#[test]
fn credentials_are_taken_out_of_what_is_said() {
    let environment = [
        ("AWS_SECRET_ACCESS_KEY".to_owned(), "made/up+secret".to_owned()),
        ("AWS_REGION".to_owned(), "eu-test-1".to_owned()),
    ];
    let scrubber = Scrubber::new(&environment);
    for (text, expected) in [
        ("no made/up+secret in eu-test-1", "no … in eu-test-1"),
        ("at https://h/a?sig=b%20c, again", "at https://h/a?… again"),
        (
            "status 403: <?xml?><Error><Code>Denied</Code><Message>No.</Message><StringToSign>x",
            "status 403: Denied: No.",
        ),
        ("status 502: <html><body>x", "status 502"),
    ] {
        assert_eq!(scrubber.clean(text), expected);
    }
}
