use std::io::Write as _;

use super::*;
use crate::source::KeyRange;

fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        // Written into the header as it is: the builder refuses names that lead elsewhere.
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn archive(bytes: &[u8]) -> Result<Archive, SourceError> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Archive::of_file(Path::new("backup"), file)
}

fn all(ordered: bool) -> Query {
    Query { ranges: vec![KeyRange::prefix(b"/")], revision: None, ordered }
}

/// Key, value, revision and authenticated data.
type Seen = (String, String, i64, String);

fn seen(archive: &mut Archive, query: &Query) -> (Vec<Seen>, Visit) {
    let mut seen = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let visit = archive.visit(query, &mut |entry| {
        let bound = crate::entry::Place::from(entry).authenticated(b"");
        seen.push((text(entry.key), text(entry.stored()), entry.mod_revision, text(&bound)));
        ControlFlow::Continue(())
    });
    (seen, visit.unwrap())
}

#[test]
fn objects_of_velero_are_at_the_keys_of_an_api_server_each_once() {
    let a = br#"{"metadata":{"name":"a","resourceVersion":"573"}}"#;
    let bytes = tar(&[
        ("metadata/version", b"1.1.0\n"),
        ("resources/services/namespaces/ns/s.json", b"{}"),
        ("resources/secrets/v1-preferredversion/namespaces/ns/a.json", b"{}"),
        ("resources/secrets/namespaces/ns/a.json", a),
        (
            "resources/ingresses.extensions/namespaces/ns/i.json",
            br#"{"metadata":{"resourceVersion":"x"}}"#,
        ),
        ("resources/nodes/cluster/n.json", b"{}"),
        ("resources/widgets.example.com/v1/namespaces/ns/w.json", b"{}"),
    ]);
    let mut archive = archive(&bytes).unwrap();
    let (found, visit) = seen(&mut archive, &all(true));
    assert_eq!((visit.revision, &visit.damage), (0, &vec![]));
    let keys: Vec<_> = found.iter().map(|f| f.0.as_str()).collect();
    assert_eq!(
        keys,
        [
            "/registry/example.com/widgets/ns/w",
            "/registry/ingress/ns/i",
            "/registry/minions/n",
            "/registry/secrets/ns/a",
            "/registry/services/specs/ns/s",
        ]
    );
    assert_eq!(found[3].1.as_bytes(), a);
    let revisions: Vec<_> = found.iter().map(|f| f.2).collect();
    assert_eq!(revisions, [0, 0, 0, 573, 0]);
    assert!(found.iter().all(|f| f.0 == f.3), "bound to its key");
    let (mut unordered, _) = seen(&mut archive, &all(false));
    assert_eq!(unordered[0].0, "/registry/services/specs/ns/s", "as they lie");
    unordered.sort();
    assert_eq!(unordered, found);
    let one = Query { ranges: vec![KeyRange::single(b"/registry/minions/n")], ..all(false) };
    assert_eq!(seen(&mut archive, &one).0.len(), 1);
    let past = Query { revision: Some(5), ..all(false) };
    assert!(archive.visit(&past, &mut |_| ControlFlow::Break(())).unwrap_err().is_no_history());
    let history = archive.history(&all(true), &mut |_| ControlFlow::Continue(()));
    assert!(history.unwrap_err().to_string().contains("an archive of objects has no history"));
}

#[test]
fn values_of_rancher_are_unquoted_and_bound_to_their_names() {
    let bytes = tar(&[
        ("filters/filters.json", b"[]"),
        ("secrets.#v1/ns/a.json", b"\"azhzOmVuYzo=\""),
        ("secrets.#v1/ns/b.json", br#"{"metadata":{"name":"b"}}"#),
        ("secrets.#v1/ns/c.json", b"\"no base64\""),
        ("users.management.cattle.io#v3/u-1.json", b"\"azhzOmVuYzo=\"\n"),
    ]);
    let (found, visit) = seen(&mut archive(&bytes).unwrap(), &all(true));
    assert_eq!(visit.damage, []);
    let found: Vec<_> = found.iter().map(|f| (f.0.as_str(), f.1.as_str(), f.3.as_str())).collect();
    assert_eq!(
        found,
        [
            ("/registry/management.cattle.io/users/u-1", "k8s:enc:", "u-1"),
            ("/registry/secrets/ns/a", "k8s:enc:", "ns#a"),
            ("/registry/secrets/ns/b", r#"{"metadata":{"name":"b"}}"#, "ns#b"),
            ("/registry/secrets/ns/c", "\"no base64\"", "ns#c"),
        ]
    );
}

#[test]
fn what_is_not_read_is_damage() {
    let good = ("resources/secrets/namespaces/ns/a.json", &b"{}"[..]);
    let other = ("resources/secrets/namespaces/ns/b.json", &b"{}"[..]);
    let whole = tar(&[good, other]);
    for (bytes, words, objects) in [
        (tar(&[good, ("resources/secrets/namespaces/../../etc/x.json", b"{}")]), "no object's", 1),
        (tar(&[good, ("secrets.#v1/ns/b.json", b"{}")]), "none of a Velero backup", 1),
        (tar(&[good, ("resources/a.b-c/namespaces/ns/b.json", b"{}")]), "no API server", 1),
        // Within the second member, behind its content, between two members, and before the mark
        // of the end.
        (whole[..1024 + 100].to_vec(), "cut or damaged", 1),
        (whole[..1536 + 100].to_vec(), "cut or damaged", 2),
        (whole[..1024].to_vec(), "has no end", 1),
        (whole[..2048].to_vec(), "has no end", 2),
    ] {
        let (found, visit) = seen(&mut archive(&bytes).unwrap(), &all(true));
        assert_eq!(found.len(), objects, "{words}");
        assert_eq!(visit.damage.len(), 1, "{words}: {:?}", visit.damage);
        assert!(visit.damage[0].what.contains(words), "{words}: {:?}", visit.damage);
    }
    assert!(archive(&tar(&[("a.json", b"{}")])).is_err());
    assert!(archive(b"").is_err());
}

#[test]
fn objects_beyond_a_window_come_in_the_order_of_their_keys() {
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(20 << 20));
    let names = ["d", "b", "a", "c"];
    let paths: Vec<_> =
        names.iter().map(|n| format!("resources/secrets/namespaces/ns/{n}.json")).collect();
    let members: Vec<_> = paths.iter().map(|p| (p.as_str(), large.as_bytes())).collect();
    let mut keys = Vec::new();
    let mut archive = archive(&tar(&members)).unwrap();
    let visit = archive.visit(&all(true), &mut |entry| {
        assert_eq!(entry.stored().len(), large.len());
        keys.push(entry.key.last().copied());
        ControlFlow::Continue(())
    });
    assert!(visit.unwrap().damage.is_empty());
    assert_eq!(keys, [b'a', b'b', b'c', b'd'].map(Some));
}

#[test]
fn a_small_archive_that_was_cut_shows_what_it_has() {
    let paths: Vec<_> =
        (0..9).map(|n| format!("resources/secrets/namespaces/ns/{n}.json")).collect();
    let members: Vec<_> = paths.iter().map(|p| (p.as_str(), &b"{}"[..])).collect();
    let whole = zstd::encode_all(&tar(&members)[..], 1).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    gzip.write_all(&tar(&members)).unwrap();
    let packed = gzip.finish().unwrap();
    let (found, visit) = seen(&mut archive(&packed[..4000]).unwrap(), &all(true));
    assert!((1..9).contains(&found.len()), "{}", found.len());
    assert_eq!(visit.damage.len(), 1, "{:?}", visit.damage);
    // Of one block nothing can be had.
    assert!(archive(&whole[..whole.len() / 2]).is_err());
}
