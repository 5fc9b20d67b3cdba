use super::*;

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
fn openshift_prefixes_are_known() {
    let l = locate(b"/kubernetes.io/secrets/a/b", b"/kubernetes.io/");
    assert_eq!((l.resource.as_ref(), l.namespace.as_deref()), ("secrets", Some("a")));
    let l = locate(b"/openshift.io/oauth/accesstokens/t", b"/openshift.io/");
    assert_eq!(
        (l.resource.as_ref(), l.name.as_ref()),
        ("oauthaccesstokens.oauth.openshift.io", "t")
    );
    let l = locate(b"/openshift.io/routes/a/b", b"/kubernetes.io/");
    assert_eq!(l.resource.as_ref(), "routes.route.openshift.io");
}

#[test]
fn own_prefix_is_stripped() {
    let l = locate(b"/prod/k8s/secrets/a/b", b"/prod/k8s/");
    assert_eq!(l.object_at, "/prod/k8s/secrets/".len());
    assert_eq!((l.resource.as_ref(), l.name.as_ref()), ("secrets", "b"));
}

#[test]
fn scopes_narrow_and_widen() {
    let secrets = [Selector::Exact("secrets".into())];
    let ranges = |prefix: &str| Scope::new(prefix).ranges(&secrets);
    let p = |s: &str| KeyRange::prefix(s.as_bytes());
    assert_eq!(ranges("/registry"), [p("/registry/secrets/")]);
    assert_eq!(ranges("/registry/secrets/a"), [p("/registry/secrets/a")]);
    assert_eq!(ranges("/registry/secrets"), [p("/registry/secrets/")]);
    assert_eq!(ranges("/registry/configmaps/"), []);
    assert_eq!(ranges("/prod"), [p("/prod/secrets/")]);
    assert!(ranges("/").contains(&p("/kubernetes.io/secrets/")));
    assert!(ranges("").contains(&p("/registry/secrets/")));
    let deeper = Scope::new("/registry/secrets/a/");
    let l = deeper.locate(b"/registry/secrets/a/b");
    assert_eq!((l.resource.as_ref(), l.namespace.as_deref()), ("secrets", Some("a")));
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
