//! Numbers come out as the API server prints them. Python is the judge: its `repr` gives the
//! fewest digits, and the rest is written down anew from Go's `encoding/json`.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::bin;

/// Writes random numbers, and each as Go prints it after Kubernetes has read it.
const ORACLE: &str = r#"
import decimal, json, random, re, struct, sys
r = random.Random(int(sys.argv[1]))
def go(text):
    if re.fullmatch(r"-?\d+", text) and -2**63 <= int(text) < 2**63:
        return str(int(text))
    f = float(text)
    sign, digits, exponent = decimal.Decimal(repr(f)).as_tuple()
    while len(digits) > 1 and digits[-1] == 0:
        digits, exponent = digits[:-1], exponent + 1
    text, at = "".join(map(str, digits)), exponent + len(digits) - 1
    if f != 0 and not 1e-6 <= abs(f) < 1e21:
        out = text[0] + ("." + text[1:] if text[1:] else "") + "e" + ("-" if at < 0 else "+") + str(abs(at))
    elif f == 0:
        out = "0"
    elif at < 0:
        out = "0." + "0" * (-at - 1) + text
    else:
        text += "0" * (at + 1 - len(text))
        out = text[:at + 1] + ("." + text[at + 1:] if text[at + 1:] else "")
    return ("-" if sign else "") + out
def one():
    kind = r.randrange(6)
    if kind == 0:
        return str(r.randrange(-2**65, 2**65) >> r.randrange(66))
    if kind == 1:
        while True:
            f = struct.unpack("<d", struct.pack("<Q", r.getrandbits(64)))[0]
            if f == f and abs(f) != float("inf"):
                return repr(f)
    if kind == 2:
        return repr(r.uniform(-1e9, 1e9))
    if kind == 3:
        return "%d.%de%+d" % (r.randrange(-99, 99), r.randrange(10**9), r.randrange(-30, 30))
    if kind == 4:
        return "%dE%d" % (r.randrange(-9999, 9999), r.randrange(-12, 26))
    return r.choice("-0 0 -0.0 0.0 1.0 -1.50 9223372036854775807 9223372036854775808 -9223372036854775809 18446744073709551616 1e20 1e21 0.000001 0.00000099 5e-324 1.7976931348623157e308".split())
print(json.dumps([(t, go(t)) for t in (one() for _ in range(int(sys.argv[2])))]))
"#;

fn numbers(count: usize) -> Vec<(String, String)> {
    let seed = std::env::var("ATREST_TEST_SEED").unwrap_or_else(|_| "1".to_owned());
    let mut python = Command::new("python3")
        .args(["-", &seed, &count.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    python.stdin.take().unwrap().write_all(ORACLE.as_bytes()).unwrap();
    let done = python.wait_with_output().unwrap();
    assert!(done.status.success());
    serde_json::from_slice(&done.stdout).unwrap()
}

fn widget(spec: &str) -> String {
    format!(
        r#"{{"apiVersion":"example.com/v1","kind":"Widget","metadata":{{"name":"w","namespace":"n"}},"spec":{spec}}}"#
    )
}

#[test]
fn json_in_every_command() {
    let all = numbers(4000);
    let list = |pick: fn(&(String, String)) -> &str| {
        format!("[{}]", all.iter().map(pick).collect::<Vec<_>>().join(","))
    };
    let (stored, printed) = (list(|n| &n.0), list(|n| &n.1));
    let decoded = bin().words("decode -w json").stdin(widget(&stored)).run().ok();
    let packed = |text: &str| text.split_ascii_whitespace().collect::<String>();
    assert!(packed(decoded.text()).contains(&printed), "decode");

    // In YAML the same numbers, in whatever spelling, as Python and Go read them.
    let yaml = bin().words("decode").stdin(widget(&stored)).run().ok();
    let spelt: Vec<&str> =
        yaml.text().lines().filter_map(|l| l.trim().strip_prefix("- ")).collect();
    assert_eq!(spelt.len(), all.len());
    for (spelt, (_, printed)) in spelt.iter().zip(&all) {
        let number: f64 = printed.parse().unwrap();
        assert_eq!(
            spelt.parse::<f64>().unwrap().to_bits(),
            number.to_bits(),
            "{printed} as {spelt}"
        );
        // Without a point, YAML 1.1 takes an exponent for text.
        assert!(!spelt.contains('e') || spelt.contains('.'), "{spelt}");
        let whole = !printed.contains(['.', 'e']) && printed != "-0";
        assert!(!whole || spelt == printed, "{printed} as {spelt}");
    }

    // What `encode` stores is what the API server would store.
    for manifest in [widget(&stored), yaml.text().to_owned()] {
        let done = bin().words("encode").stdin(manifest).run().ok();
        let value: Value = serde_json::from_slice(&done.stdout).unwrap();
        assert_eq!(value["spec"].to_string(), printed, "encode");
    }
}

#[test]
fn a_number_that_no_server_could_hold_is_not_changed_into_another() {
    bin().words("decode").stdin(widget("[1e999]")).run().code(4).says("too large");
    bin().words("encode").stdin(widget("[1e999]")).run().fails(1).says("too large");
}
