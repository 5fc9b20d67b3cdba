#![allow(clippy::unwrap_used)] // a panic is a failed test

use super::*;

fn parsed(text: &str) -> Address {
    Url::of(text).unwrap().parse().unwrap()
}

fn who(address: &Address) -> (&str, &str) {
    let password = address.password.as_ref().map_or("", |p| p.as_str());
    (address.user.as_deref().unwrap_or(""), password)
}

#[test]
fn addresses_as_k3s_writes_them() {
    for (text, user, password, shown) in [
        (
            "postgres://k3s:p%40ss@db:6432/kine?sslmode=disable",
            "k3s",
            "p@ss",
            "postgres://db:6432/kine",
        ),
        ("postgresql://db", "", "", "postgres://db:5432/kubernetes"),
        ("postgres://a:b@[::1]/", "a", "b", "postgres://[::1]:5432/kubernetes"),
        ("postgres://u@/d?host=/run/pg&port=6000", "u", "", "postgres:///run/pg/.s.PGSQL.6000/d"),
        ("postgres://h/d?user=u&password=p", "u", "p", "postgres://h:5432/d"),
        (
            "mysql://k3s:p@ss/w%41:x@tcp(db:3307)/kine",
            "k3s",
            "p@ss/w%41:x",
            "mysql://tcp(db:3307)/kine",
        ),
        ("mysql://root@tcp(10.0.0.1)/", "root", "", "mysql://tcp(10.0.0.1:3306)/kubernetes"),
        ("mysql://root@unix(/run/my.sock)/d?tls=false", "root", "", "mysql://unix(/run/my.sock)/d"),
        ("mysql://u:p%40@db:3306/d", "u", "p@", "mysql://tcp(db:3306)/d"),
        ("mysql://", "", "", "mysql://tcp(127.0.0.1:3306)/kubernetes"),
        ("mysql://tcp([fe80::1]:1)/d", "", "", "mysql://tcp([fe80::1]:1)/d"),
        ("nats://", "", "", "nats://localhost:4222?bucket=kine"),
        ("nats://?noEmbed", "", "", "nats://localhost:4222?bucket=kine"),
        // As kine sends it.
        ("nats://k3s:p%40s!@db/?bucket=b&replicas=3", "k3s", "p%40s%21", "nats://db:4222?bucket=b"),
        ("nats://token@[::1]:1?revHistory=5", "", "token", "nats://[::1]:1?bucket=kine"),
        (
            "nats://u:p@a?bucket=b,nats://x:y@c:1,nats://d",
            "u",
            "p",
            "nats://a:4222?bucket=b,nats://c:1,nats://d:4222",
        ),
        ("nats://?contextFile=/c.json", "", "", "nats://?contextFile=/c.json&bucket=kine"),
    ] {
        let address = parsed(text);
        assert_eq!(who(&address), (user, password), "{text}");
        assert_eq!(address.shown(), shown, "{text}");
    }
    for (text, security) in [
        ("postgres://h/d", None),
        ("postgres://h/d?sslmode=require", Some(Security::Unverified)),
        ("postgres://h/d?sslmode=verify-ca", Some(Security::Authority)),
        ("postgres://h/d?sslmode=verify-full", Some(Security::Full)),
        ("mysql://tcp(h)/d?charset=utf8&tls=skip-verify", Some(Security::Unverified)),
        ("mysql://tcp(h)/d?tls=preferred", Some(Security::Preferred)),
        ("mysql://tcp(h)/d?tls=true", Some(Security::Full)),
    ] {
        assert_eq!(parsed(text).security, security, "{text}");
    }
}

#[test]
fn what_is_not_honoured_is_refused_without_a_secret() {
    for text in [
        "etcd3://u:hunter2@h",
        "postgres://u:hunter2@h:x/d",
        "postgres://u:hunter2@a,b/d",
        "postgres://u:hunter2@h/d?sslmode=hunter2",
        "postgres://u:hunter2@h/d?sslpassword=hunter2",
        "postgres://u:hunter2%4@h/d",
        "nats://u:hunter2@h:x",
        "nats://u:hunter2@h,hunter2@x",
        "nats://u:hunter2@h?tls=hunter2",
        "nats://u:hunter2@h?bucket=hunter2.x",
        "nats://u:hunter2@h?contextFile=/hunter2",
        "nats://u:hunter2@h?dontListen",
        "mysql://u:hunter2@tcp(h/d",
        "mysql://u:hunter2@pipe(h)/d",
        "mysql://u:hunter2@tcp(h)/d?tls=hunter2",
        "mysql://u:hunter2@tcp(h)/d?serverPubKey=hunter2",
    ] {
        let url = Url::of(text).unwrap();
        let error = url.parse().unwrap_err();
        let said = format!("{url:?} {} {error} {error:?}", url.shown());
        assert!(!said.contains("hunter2"), "{said}");
    }
    let address = parsed("postgres://u:hunter2@h/d");
    assert!(!format!("{address:?}").contains("hunter2"));
    for text in ["state.db", "./a://b", "/var/lib/x", "://x", "1a://x"] {
        assert_eq!(Url::of(text), None, "{text}");
    }
}
