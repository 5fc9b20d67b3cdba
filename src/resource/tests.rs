use std::borrow::Cow;

use super::catalogue::GROUPED;
use super::*;
use crate::range::KeyRange;

fn at(key: &str) -> (String, Option<String>, String, bool) {
    let l = locate(key.as_bytes(), DEFAULT_PREFIX.as_bytes());
    (l.resource.into_owned(), l.namespace.map(Cow::into_owned), l.name.into_owned(), l.internal)
}

#[test]
fn group_table_is_sorted() {
    assert!(GROUPED.windows(2).all(|w| w[0].0 < w[1].0));
}

#[test]
fn keys_map_to_resources() {
    let namespaced = |r: &str, ns: &str, n: &str| (r.into(), Some(ns.into()), n.into(), false);
    let cluster = |r: &str, n: &str| (r.into(), None, n.into(), false);
    assert_eq!(at("/registry/secrets/default/login1"), namespaced("secrets", "default", "login1"));
    assert_eq!(at("/registry/deployments/a/b"), namespaced("deployments.apps", "a", "b"));
    assert_eq!(at("/registry/services/specs/a/b"), namespaced("services", "a", "b"));
    assert_eq!(at("/registry/services/endpoints/a/b"), namespaced("endpoints", "a", "b"));
    assert_eq!(at("/registry/minions/n1"), cluster("nodes", "n1"));
    assert_eq!(at("/registry/ingress/a/b"), namespaced("ingresses.networking.k8s.io", "a", "b"));
    assert_eq!(
        at("/registry/clusterroles/system:node"),
        cluster("clusterroles.rbac.authorization.k8s.io", "system:node")
    );
    assert_eq!(
        at("/registry/example.com/widgets/a/w1"),
        namespaced("widgets.example.com", "a", "w1")
    );
    assert_eq!(
        at("/registry/example.com/secrets/a/w1"),
        namespaced("secrets.example.com", "a", "w1")
    );
    assert_eq!(
        at("/registry/services.example.com/secrets/w1"),
        cluster("secrets.services.example.com", "w1")
    );
    assert_eq!(
        at("/registry/apiregistration.k8s.io/apiservices/v1."),
        cluster("apiservices.apiregistration.k8s.io", "v1.")
    );
    assert!(at("/registry/masterleases/192.0.2.2").3);
    assert!(at("/registry/ranges/serviceips").3);
    assert!(at("compact_rev_key").3);
    assert!(at("/bootstrap/0123456789ab").3);
}

#[test]
fn openshift_has_two_prefixes() {
    let scope = Scope::new("kubernetes.io");
    let l = scope.locate(b"/kubernetes.io/secrets/a/b");
    assert_eq!((l.resource.as_ref(), l.namespace.as_deref()), ("secrets", Some("a")));
    let l = scope.locate(b"/openshift.io/oauth/accesstokens/t");
    assert_eq!(
        (l.resource.as_ref(), l.name.as_ref()),
        ("oauthaccesstokens.oauth.openshift.io", "t")
    );
    let l = scope.locate(b"/openshift.io/routes/a/b");
    assert_eq!(
        (l.resource.as_ref(), l.namespace.as_deref()),
        ("routes.route.openshift.io", Some("a"))
    );
    assert_eq!(scope.locate(b"/openshift.io/newkinds/a/b").resource, "newkinds");
    // Another prefix is another API server's.
    assert!(Scope::new("/registry").locate(b"/openshift.io/routes/a/b").internal);
}

/// The first answer that counts is that of the API server that shares the etcd.
#[test]
fn an_aggregated_api_server_may_have_its_group_twice() {
    for key in [
        "/registry/wardle.example.com/flunders/a/f",
        "/registry/wardle.example.com/wardle.example.com/flunders/a/f",
        "/registry/its.own.prefix/wardle.example.com/flunders/a/f",
    ] {
        assert_eq!(at(key).0, "flunders.wardle.example.com", "{key}");
        assert_eq!(at(key).2, "f", "{key}");
    }
    let l = at("/registry/servicecatalog.k8s.io/clusterservicebrokers/b");
    assert_eq!(
        (l.0.as_str(), l.1, l.2.as_str()),
        ("clusterservicebrokers.servicecatalog.k8s.io", None, "b")
    );
}

#[test]
fn what_another_prefix_holds_is_nobodys_resource() {
    for key in ["/registry/cluster1/secrets/a/b", "/registry/cluster1/services/specs/a/b"] {
        assert!(at(key).3, "{key}");
        assert!(Scope::new("/").locate(key.as_bytes()).internal, "{key}");
        let named = Scope::new("/registry").locate_named(key.as_bytes()).resource.into_owned();
        assert_eq!(named, key.split('/').nth(3).unwrap(), "{key}");
    }
    assert!(Scope::new("/").locate(b"/kubernetes.io/secrets/a/b").internal);
    assert_eq!(Scope::new("/").locate(b"/secrets/a/b").resource, "secrets");
}

#[test]
fn a_key_tells_its_base() {
    for (key, base) in [
        ("/registry/secrets/a/b", "/registry/"),
        ("/registry/secrets/secrets/b", "/registry/"),
        ("/registry/minions/n", "/registry/"),
        ("/registry/example.com/secrets/a/b", "/registry/"),
        ("/kubernetes.io/secrets/a/b", "/kubernetes.io/"),
        ("/openshift.io/routes/a/b", "/openshift.io/"),
        ("/a/b/c/services/endpoints/a/b", "/a/b/c/"),
        ("/secrets/a/b", "/"),
    ] {
        assert_eq!(base_of(key.as_bytes()), Some(base.len()), "{key}");
    }
    for key in ["compact_rev_key", "/registry/masterleases/1.2.3.4", "/registry/health", "/"] {
        assert_eq!(base_of(key.as_bytes()), None, "{key}");
    }
}

#[test]
fn own_prefix_is_stripped() {
    let l = locate(b"/prod/k8s/secrets/a/b", b"/prod/k8s/");
    assert_eq!(l.object_at, "/prod/k8s/secrets/".len());
    assert_eq!((l.resource.as_ref(), l.name.as_ref()), ("secrets", "b"));
}

/// As the API server: `path.Join("/", prefix)`.
#[test]
fn a_prefix_is_joined_as_the_api_server_joins_it() {
    for (given, base) in [
        ("/registry", "/registry/"),
        ("registry/", "/registry/"),
        ("foo//bar", "/foo/bar/"),
        ("/foo/./bar/", "/foo/bar/"),
        ("//foo/x/../bar", "/foo/bar/"),
        ("../foo", "/foo/"),
        ("/registry/cluster1", "/registry/cluster1/"),
        ("", "/"),
        ("/", "/"),
    ] {
        assert_eq!(Scope::new(given).base(), base, "{given}");
    }
    let secrets = [Selector::Exact("secrets".into())];
    let p = |s: &str| KeyRange::prefix(s.as_bytes());
    assert_eq!(Scope::new("/registry/a").ranges(&secrets), [p("/registry/a/secrets/")]);
    assert_eq!(Scope::new("/").ranges(&secrets), [p("/secrets/")]);
    // A resource is none of the prefix.
    assert_eq!(Scope::new("/registry/secrets").ranges(&secrets), [p("/registry/secrets/secrets/")]);
    let behind = Scope::behind("/tenant-a", "registry");
    assert_eq!(behind.ranges(&secrets), [p("/tenant-a/registry/secrets/")]);
    assert_eq!(behind.locate(b"/tenant-a/registry/secrets/a/b").resource, "secrets");
    let routes = [Selector::Exact("routes.route.openshift.io".into())];
    assert!(Scope::new("/kubernetes.io/").ranges(&routes).contains(&p("/openshift.io/routes/")));
}

#[test]
fn selectors_cover_their_keys() {
    for (raw, key) in [
        ("secrets", "/registry/secrets/a/b"),
        ("secrets.", "/registry/secrets/a/b"),
        ("deployments.apps", "/registry/deployments/a/b"),
        ("deployments", "/registry/deployments/a/b"),
        ("*.apps", "/registry/statefulsets/a/b"),
        ("*.", "/registry/configmaps/a/b"),
        ("nodes", "/registry/minions/b"),
        ("ingresses.networking.k8s.io", "/registry/ingress/a/b"),
        ("*.example.com", "/registry/example.com/widgets/a/b"),
        ("widgets.example.com", "/registry/example.com/widgets/a/b"),
        ("services", "/registry/services/specs/a/b"),
        ("*.*", "/registry/anything/b"),
    ] {
        let s = Selector::parse(raw).unwrap();
        assert!(s.ranges(DEFAULT_PREFIX).iter().any(|r| r.contains(key.as_bytes())), "{raw}");
        assert!(s.matches(&locate(key.as_bytes(), b"/registry/").resource), "{raw}");
    }
    assert!(!Selector::parse("secrets").unwrap().matches("secrets.example.com"));
    assert!(Selector::parse("").is_err());
    assert!(Selector::parse("*").is_err());
    assert!(Selector::parse("se*").is_err());
}

#[test]
fn ranges_merge() {
    let p = |s: &str| KeyRange::prefix(s.as_bytes());
    assert_eq!(merge_ranges(vec![p("/b/"), p("/a/"), p("/a/x/")]), vec![p("/a/"), p("/b/")]);
}
