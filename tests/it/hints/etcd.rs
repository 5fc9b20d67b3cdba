//! Members that cannot be reached or do not serve what is asked for.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use super::says;
use crate::live::otherwise;
use crate::support::bin::Bin;
use crate::support::certs::{Certs, Pair};
use crate::support::etcd::{connection_args, free_ports};
use crate::support::fake_etcd::{FakeEtcd, Store};
use crate::support::kms_plugin::{Behaviour, Listen, Running};
use crate::support::proxy::Proxy;
use crate::support::{Etcd, Version, bin};

fn scan(endpoint: &str) -> Bin {
    bin().words("scan --allow-empty --endpoints").arg(endpoint)
}

fn openssl(args: &[&str]) {
    let done = std::process::Command::new("openssl").args(args).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

fn utf8(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn certificates() {
    let certs = Certs::new();
    let etcd = Etcd::builder(Version::V35).tls(&certs).start();
    let url = etcd.url();
    let with =
        |ca: &Path, pair: &Pair| scan(&url).args(connection_args(ca, &pair.cert, &pair.key)).run();
    let right = || with(&certs.ca, &certs.client);
    let client =
        |b: Bin| b.arg("--cert").arg(&certs.client.cert).arg("--key").arg(&certs.client.key);
    says("give etcd's CA with --cacert").helps(&client(scan(&url)).run(), |_| right());
    let no_client = scan(&url).arg("--cacert").arg(&certs.ca).run();
    says("give --cert and --key; kubeadm:").helps(&no_client, |_| right());
    says("renew it (kubeadm certs renew apiserver-etcd-client)")
        .helps(&with(&certs.ca, &certs.expired_client), |_| right());
    says("it must be signed by the server's --trusted-ca-file")
        .helps(&with(&certs.ca, &certs.stranger), |_| right());
    let mixed = Pair { cert: certs.client.cert.clone(), key: certs.stranger.key.clone() };
    says("give --cert and --key of the same pair").helps(&with(&certs.ca, &mixed), |_| right());

    let plain = format!("http://{}", etcd.endpoint());
    says("try {} with --cacert, --cert and --key").helps(&scan(&plain).run(), |said| {
        let https = said.split(' ').nth(1).unwrap();
        scan(https).args(connection_args(&certs.ca, &certs.client.cert, &certs.client.key)).run()
    });
    let etcd = Etcd::plain(Version::V35);
    let tls = scan(&etcd.url().replace("http:", "https:"));
    says("the port may not speak TLS: try {}")
        .helps(&tls.run(), |said| scan(said.split("try ").nth(1).unwrap()).run());
}

#[test]
fn a_key_with_a_passphrase() {
    let certs = Certs::new();
    let etcd = Etcd::builder(Version::V35).tls(&certs).start();
    let path = |name: &str| certs.dir().join(name);
    let (locked, open) = (path("locked.key"), path("open.key"));
    let key = utf8(&certs.client.key);
    openssl(&[
        "pkey",
        "-in",
        key,
        "-aes256",
        "-passout",
        "pass:thrown-away",
        "-out",
        utf8(&locked),
    ]);
    let with = |key: &Path| {
        scan(&etcd.url()).args(connection_args(&certs.ca, &certs.client.cert, key)).run()
    };
    says("openssl pkey removes the passphrase").helps(&with(&locked), |_| {
        openssl(&[
            "pkey",
            "-in",
            utf8(&locked),
            "-passin",
            "pass:thrown-away",
            "-out",
            utf8(&open),
        ]);
        with(&open)
    });
}

/// A certificate that says that it is for something else than serving.
#[test]
fn a_certificate_that_is_not_acceptable() {
    let mut certs = Certs::new();
    let names = certs.server.clone();
    let (request, extensions) = (certs.dir().join("r.csr"), certs.dir().join("ext"));
    let (ca, ca_key) = (certs.dir().join("ca2.crt"), certs.dir().join("ca2.key"));
    openssl(&[
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=a test CA",
        "-days",
        "2",
        "-keyout",
        utf8(&ca_key),
        "-out",
        utf8(&ca),
    ]);
    openssl(&[
        "req",
        "-new",
        "-key",
        utf8(&names.key),
        "-subj",
        "/CN=etcd",
        "-out",
        utf8(&request),
    ]);
    let cert = certs.dir().join("no-server.crt");
    let sign = |wanted: &str| {
        std::fs::write(&extensions, wanted).unwrap();
        openssl(&[
            "x509",
            "-req",
            "-in",
            utf8(&request),
            "-CA",
            utf8(&ca),
            "-CAkey",
            utf8(&ca_key),
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            utf8(&extensions),
            "-out",
            utf8(&cert),
        ]);
    };
    sign("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=clientAuth\n");
    certs.server.cert = cert.clone();
    let etcd = Etcd::builder(Version::V34).tls(&certs).start();
    let with =
        || scan(&etcd.url()).args(connection_args(&ca, &certs.client.cert, &certs.client.key));
    says("issued anew with the extended key usage serverAuth").helps(&with().run(), |_| {
        sign("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n");
        // etcd reads the file for each connection.
        with().run()
    });
}

/// What it says of itself is all that there is to go by.
#[test]
fn a_certificate_that_is_its_own_ca() {
    let mut certs = Certs::new();
    let (cert, key) = (certs.dir().join("own.crt"), certs.dir().join("own.key"));
    let words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=etcd \
                 -addext subjectAltName=IP:127.0.0.1 -days 2 -keyout";
    let words = words.split_whitespace().chain([utf8(&key), "-out", utf8(&cert)]);
    openssl(&words.collect::<Vec<_>>());
    certs.server = Pair { cert: cert.clone(), key };
    let etcd = Etcd::builder(Version::V35).tls(&certs).start();
    let with = |ca: &Path| {
        let args = connection_args(ca, &certs.client.cert, &certs.client.key);
        scan(&etcd.url()).args(args).run()
    };
    says("give that very certificate with --cacert").helps(&with(&certs.ca), |_| with(&cert));
}

#[test]
fn endpoints() {
    let etcd = Etcd::plain(Version::V35);
    let right = || scan(&etcd.endpoint()).run();
    says("name an etcd member, such as --endpoints").helps(&scan(",").run(), |_| right());
    says("check the spelling of --endpoints, or give an address")
        .helps(&scan("no-such-host.invalid:2379").run(), |_| right());
    let [port] = free_ports();
    says("check that etcd runs and listens there (its --listen-client-urls)")
        .helps(&scan(&format!("127.0.0.1:{port}")).run(), |_| right());
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("kms.sock");
    let _plugin = Running::start(Listen::Path(socket.clone()), Behaviour::new("kek"));
    says("check the port of --endpoints")
        .helps(&scan(&format!("unix://{}", socket.display())).run(), |_| right());
}

/// What answers HTTP without TLS is somebody else, or etcd behind TLS.
#[test]
fn a_port_that_speaks_http() {
    use std::io::{Read as _, Write as _};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 24]);
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    let certs = Certs::new();
    let etcd = Etcd::builder(Version::V35).tls(&certs).start();
    says("if it is etcd with TLS, try {} with --cacert").helps(&scan(&at).run(), |said| {
        assert!(said.contains(&format!("try https://{at} with")), "{said}");
        bin().words("scan --allow-empty").args(etcd.args()).run()
    });
}

#[test]
fn more_time() {
    let etcd = Etcd::plain(Version::V35);
    let proxy = Proxy::new(&etcd.endpoint());
    proxy.hold_after(0);
    let within = |time: &str| scan(&proxy.endpoint).arg("--command-timeout").arg(time).run();
    says("--command-timeout gives it more time").helps(&within("300ms"), |_| {
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| within("60s"));
            std::thread::sleep(Duration::from_millis(500));
            proxy.release();
            waiting.join().unwrap()
        })
    });
}

/// An entry that needs five seconds.
#[test]
fn more_time_for_a_slow_link() {
    let etcd = Etcd::plain(Version::V35);
    etcd.put("/registry/secrets/a/a", &vec![b'v'; 100_000]);
    let proxy = Proxy::new(&etcd.endpoint());
    proxy.slow(20_000);
    let within = |time: &str| scan(&proxy.endpoint).arg("--command-timeout").arg(time).run();
    says("the link is slow: --command-timeout gives an answer more time")
        .helps(&within("2s"), |_| within("60s"));
}

/// A listener whose queue is full drops connections until somebody takes some.
#[test]
fn more_time_to_connect() {
    let etcd = Etcd::plain(Version::V35);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let mut queue = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&at, Duration::from_secs(1)) {
        queue.push(stream);
        assert!(queue.len() < 10_000, "the queue has no end");
    }
    let within = |time: &str| scan(&at.to_string()).arg("--dial-timeout").arg(time).run();
    says("--dial-timeout gives it more time").helps(&within("300ms"), |_| {
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| within("60s"));
            drop(queue);
            // From now on it passes what comes on to etcd.
            let to = etcd.endpoint();
            std::thread::spawn(move || {
                for client in listener.incoming() {
                    let (mut client, mut server) =
                        (client.unwrap(), TcpStream::connect(&to).unwrap());
                    let (mut from, mut back) =
                        (client.try_clone().unwrap(), server.try_clone().unwrap());
                    std::thread::spawn(move || std::io::copy(&mut from, &mut server));
                    std::thread::spawn(move || std::io::copy(&mut back, &mut client));
                }
            });
            waiting.join().unwrap()
        })
    });
}

#[test]
fn a_connection_that_is_lost() {
    let etcd = Etcd::plain(Version::V35);
    let value = "v".repeat(40_000);
    etcd.put_many((0..300).map(|i| (format!("/registry/secrets/a/s{i:03}"), value.clone())));
    let lost = |more: &str| {
        let proxy = Proxy::new(&etcd.endpoint());
        proxy.hold_after(5 << 20);
        let at = format!("{}{more}", proxy.endpoint);
        std::thread::scope(|scope| {
            let scanning = scope.spawn(|| scan(&at).words("--command-timeout 60s").run());
            proxy.wait_until_held();
            proxy.drop_connections();
            proxy.cut();
            scanning.join().unwrap()
        })
    };
    let alone = lost("");
    says("check that etcd runs and listens there")
        .helps(&alone, |_| lost(&format!(",{}", etcd.endpoint())));
}

/// A member that hangs up in the middle of each answer.
#[test]
fn connections_that_are_lost_again_and_again() {
    use std::io::{Read as _, Write as _};
    let etcd = Etcd::plain(Version::V35);
    let value = "v".repeat(40_000);
    etcd.put_many((0..100).map(|i| (format!("/registry/secrets/a/s{i:03}"), value.clone())));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let to = etcd.endpoint();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, mut server) = (client.unwrap(), TcpStream::connect(&to).unwrap());
            let (mut from, mut back) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut server));
            std::thread::spawn(move || {
                let mut answer = Vec::new();
                // A page has more than this; who takes it no more has hung up.
                let _ = (&mut back).take(100_000).read_to_end(&mut answer);
                let _ = client.write_all(&answer);
                let _ = client.shutdown(std::net::Shutdown::Both);
                let _ = back.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    let scan = |more: &str| scan(&format!("{at}{more}")).words("--command-timeout 60s").run();
    says("check that the member is healthy; further --endpoints can take over")
        .helps(&scan(""), |_| scan(&format!(",{}", etcd.endpoint())));
}

#[test]
fn a_history_that_breaks_off() {
    let etcd = Etcd::plain(Version::V35);
    let value = crate::support::secret(&"v".repeat(40_000));
    etcd.put_many((0..300).map(|i| (format!("/registry/secrets/a/s{i:03}"), value.clone())));
    let history = |endpoint: &str| {
        bin().words("history secrets --command-timeout 60s --endpoints").arg(endpoint).run()
    };
    let proxy = Proxy::new(&etcd.endpoint());
    // Behind the first part that etcd sends of so much, which is 2 MiB.
    proxy.hold_after(6 << 20);
    let printed = std::thread::scope(|scope| {
        let reading = scope.spawn(|| history(&proxy.endpoint));
        proxy.wait_until_held();
        proxy.cut();
        reading.join().unwrap()
    });
    says("run it again, or read a snapshot (etcdctl snapshot save)").helps(&printed, |_| {
        history(&etcd.endpoint()).ok();
        let dir = tempfile::tempdir().unwrap();
        etcd.snapshot(&dir.path().join("s.db"));
        bin().words("history secrets --snapshot").arg(dir.path().join("s.db")).run()
    });
}

#[test]
fn a_cluster_without_a_quorum() {
    let etcd = Etcd::plain(Version::V35);
    etcd.ctl(&["member", "add", "second", "--peer-urls=http://127.0.0.1:1"]);
    let scan = || scan(&etcd.endpoint()).words("--command-timeout 60s").run();
    let printed = scan();
    let no_leader = || {
        let done = etcd.try_ctl(&["endpoint", "status"], b"");
        String::from_utf8_lossy(&done.stdout).contains("no leader")
    };
    says("etcdctl endpoint status --endpoints").leads_to(1, &printed, |_| {
        let start = std::time::Instant::now();
        while !no_leader() {
            assert!(start.elapsed() < Duration::from_mins(1), "it has a leader");
        }
        scan()
    });
}

#[test]
fn a_learner() {
    let certs = Certs::new();
    let [first, second]: [u16; 2] = free_ports();
    let peers = [first, second].map(|port| format!("http://127.0.0.1:{port}"));
    let member = |name: &str, peer: &str| {
        Etcd::builder(Version::V35)
            .tls(&certs)
            .arg(format!("--name={name}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
    };
    let voter = member("m0", &peers[0]).arg(format!("--initial-cluster=m0={}", peers[0])).start();
    voter.put("/registry/secrets/a/b", crate::support::secret("b").as_bytes());
    voter.ctl(&["member", "add", "m1", "--learner", &format!("--peer-urls={}", peers[1])]);
    let cluster = format!("--initial-cluster=m0={},m1={}", peers[0], peers[1]);
    let learner =
        member("m1", &peers[1]).arg(cluster).arg("--initial-cluster-state=existing").start();
    let history = |of: &Etcd| bin().words("history secrets/a/b").args(of.args()).run();
    says("name a voting member with --endpoints").helps(&history(&learner), |_| history(&voter));
}

/// What raises this alarm is an operator, or a member that finds its data to be other than those
/// of the others: here while a migration has begun.
#[test]
fn a_cluster_with_the_alarm_corrupt() {
    use etcd_client::{AlarmAction, AlarmType, Client};
    let etcd = Etcd::plain(Version::V35);
    let value = crate::support::secret(&"v".repeat(40_000));
    for _ in 0..8 {
        etcd.put_many((0..100).map(|i| (format!("/registry/secrets/a/s{i:03}"), value.clone())));
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let alarm = |action| {
        runtime.block_on(async {
            let mut client = Client::connect([etcd.url()], None).await.unwrap();
            client.alarm(action, AlarmType::Corrupt, None).await.unwrap();
        });
    };
    let dir = tempfile::tempdir().unwrap();
    let config = crate::support::corpus::private_config("p1-secretbox");
    let apply = |endpoint: &str, backup: &str| {
        let run = bin().words("migrate --apply --command-timeout 60s --encryption-config");
        let run = run.arg(&config).arg("--backup").arg(dir.path().join(backup));
        run.arg("--endpoints").arg(endpoint).run()
    };
    // 4 MB are looked at for the plan, twice at most; the backup has 32 MB.
    let proxy = Proxy::new(&etcd.endpoint());
    proxy.hold_after(20 << 20);
    let printed = std::thread::scope(|scope| {
        let applying = scope.spawn(|| apply(&proxy.endpoint, "a.db"));
        proxy.wait_until_held();
        alarm(AlarmAction::Activate);
        proxy.release();
        applying.join().unwrap()
    });
    let hint = says("see etcdctl alarm list; read a member's files with --data-dir");
    let alarms = || String::from_utf8(etcd.ctl(&["alarm", "list"])).unwrap();
    hint.helps(&printed, |_| {
        assert!(alarms().contains("CORRUPT"));
        bin().words("scan --snapshot").arg(dir.path().join("a.db")).run()
    });
    // Before anything is written, it is asked for.
    says("repair it first; `etcdctl alarm list` names the member").helps(
        &apply(&etcd.endpoint(), "b.db"),
        |_| {
            assert!(alarms().contains("CORRUPT"));
            alarm(AlarmAction::Deactivate);
            assert!(!alarms().contains("CORRUPT"));
            apply(&etcd.endpoint(), "c.db")
        },
    );
    let stopped = etcd.stop();
    bin().words("scan --data-dir").arg(stopped.path().join("etcd")).run().ok();
}

#[test]
fn kine_serving_as_etcd() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let at = otherwise::serve(&runtime, |range| otherwise::as_kine(&range));
    let dir = tempfile::tempdir().unwrap();
    let (path, connection) = crate::kine::kine(dir.path(), "p1b-partial-migration");
    drop(connection);
    says("the database behind k3s's kine is read with --kine")
        .helps(&scan(&at).run(), |_| bin().words("scan --kine").arg(path).run());
}

#[test]
fn revisions_of_a_server() {
    let etcd = Etcd::plain(Version::V35);
    for i in 0..5 {
        etcd.put("/registry/secrets/a/b", crate::support::secret(&i.to_string()).as_bytes());
    }
    let scan = |more: &str| bin().words("scan").words(more).args(etcd.args()).run();
    says("give a --revision that has been reached, or none for the newest").helps(
        &scan("--revision 99999"),
        |_| {
            scan("--revision 4").ok();
            scan("")
        },
    );
    let dir = tempfile::tempdir().unwrap();
    let before = dir.path().join("before.db");
    etcd.snapshot(&before);
    etcd.ctl(&["compact", "5"]);
    says("give a newer --revision, or none for the newest; a snapshot taken before").helps(
        &scan("--revision 3"),
        |_| {
            scan("--revision 5").ok();
            scan("").ok();
            bin().words("scan --revision 3 --snapshot").arg(&before).run()
        },
    );
}

/// What is compacted between two pages of a scan.
#[test]
fn a_compaction_during_a_scan() {
    let etcd = Etcd::plain(Version::V35);
    let value = "v".repeat(40_000);
    etcd.put_many((0..300).map(|i| (format!("/registry/secrets/a/s{i:03}"), value.clone())));
    let proxy = Proxy::new(&etcd.endpoint());
    proxy.hold_after(5 << 20);
    let printed = std::thread::scope(|scope| {
        let scanning = scope.spawn(|| scan(&proxy.endpoint).words("--command-timeout 60s").run());
        proxy.wait_until_held();
        etcd.put("/registry/secrets/a/t", b"x");
        let answer = etcd.ctl(&["get", "x", "-w", "json"]);
        let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        etcd.ctl(&["compact", &answer["header"]["revision"].to_string()]);
        proxy.release();
        scanning.join().unwrap()
    });
    says("if it happens each time, scan a snapshot (etcdctl snapshot save)").helps(
        &printed,
        |_| {
            scan(&etcd.endpoint()).run().ok();
            let dir = tempfile::tempdir().unwrap();
            etcd.snapshot(&dir.path().join("s.db"));
            bin().words("scan --snapshot").arg(dir.path().join("s.db")).run()
        },
    );
}

/// Something between the program and etcd that changes what etcd says, and what is read without it.
#[test]
fn a_server_that_no_etcd_would_be() {
    let liar = FakeEtcd::paging(Store::of(100), |_, page| page.kvs.reverse());
    let etcd = Etcd::plain(Version::V35);
    etcd.put("/registry/secrets/a/b", b"x");
    let patient = |endpoint: &str| scan(endpoint).words("--command-timeout 60s --dial-timeout 60s");
    let dir = tempfile::tempdir().unwrap();
    says(
        "check that the endpoint is an etcd and not a proxy that changes messages; a member's own \
         files are read with --snapshot or --data-dir",
    )
    .helps(&patient(&liar.endpoint()).run(), |_| {
        patient(&etcd.endpoint()).run().ok();
        etcd.snapshot(&dir.path().join("s.db"));
        bin().words("scan --snapshot").arg(dir.path().join("s.db")).run()
    });
    let (one, other) = (Store::of(100), Store { cluster: 0xC2, ..Store::of(100) });
    let (one, other) = (FakeEtcd::honest(one), FakeEtcd::honest(other));
    says("name the members of one cluster with --endpoints")
        .helps(&patient(&format!("{},{}", one.endpoint(), other.endpoint())).run(), |_| {
            patient(&one.endpoint()).run()
        });
}
