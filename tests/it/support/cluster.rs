//! Three etcd members that can be killed one by one.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::etcd::free_ports;
use super::tools::{self, Version};

/// A cluster on loopback, killed when this value goes.
pub struct Cluster {
    version: Version,
    dir: TempDir,
    members: Vec<Member>,
}

struct Member {
    client: u16,
    peer: u16,
    process: Option<Child>,
}

impl Cluster {
    /// Starts three members and waits until each answers.
    pub fn start(version: Version) -> Self {
        let ports: [u16; 6] = free_ports();
        let member = |pair: &[u16]| Member { client: pair[0], peer: pair[1], process: None };
        let members = ports.chunks(2).map(member).collect();
        let mut cluster = Self { version, dir: tempfile::tempdir().unwrap(), members };
        (0..3).for_each(|i| cluster.launch(i));
        (0..3).for_each(|i| cluster.wait(i));
        cluster
    }

    /// All endpoints, with commas.
    pub fn endpoints(&self) -> String {
        let all: Vec<_> = self.members.iter().map(|m| format!("127.0.0.1:{}", m.client)).collect();
        all.join(",")
    }

    /// Kills a member, and starts it again on its data after `away`.
    pub fn restart(&mut self, index: usize, away: Duration) {
        self.kill(index);
        std::thread::sleep(away);
        self.launch(index);
        self.wait(index);
    }

    /// etcdctl against the cluster, again while it elects a leader: for what may be done twice.
    #[track_caller]
    pub fn ctl(&self, args: &[&str], stdin: &str) -> Vec<u8> {
        let path = self.dir.path().join("stdin");
        std::fs::write(&path, stdin).unwrap();
        let start = Instant::now();
        loop {
            let done = self.try_ctl(&self.endpoints(), args, Some(path.clone()));
            if done.status.success() {
                return done.stdout;
            }
            let stderr = String::from_utf8_lossy(&done.stderr);
            assert!(start.elapsed() < Duration::from_mins(1), "{stderr}");
        }
    }

    /// etcdctl against one member.
    #[track_caller]
    pub fn ctl_at(&self, index: usize, args: &[&str]) -> Vec<u8> {
        let to = format!("127.0.0.1:{}", self.members[index].client);
        let done = self.try_ctl(&to, args, None);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        done.stdout
    }

    fn try_ctl(&self, to: &str, args: &[&str], stdin: Option<PathBuf>) -> std::process::Output {
        let stdin = stdin.map_or(Stdio::null(), |path| File::open(path).unwrap().into());
        Command::new(tools::program(self.version, "etcdctl"))
            .env_clear()
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", to])
            .args(args)
            .stdin(stdin)
            .output()
            .expect("etcdctl starts")
    }

    fn launch(&mut self, index: usize) {
        let named = |(i, m): (usize, &Member)| format!("m{i}=http://127.0.0.1:{}", m.peer);
        let cluster: Vec<_> = self.members.iter().enumerate().map(named).collect();
        let member = &mut self.members[index];
        let client = format!("http://127.0.0.1:{}", member.client);
        let peer = format!("http://127.0.0.1:{}", member.peer);
        let process = Command::new(tools::program(self.version, "etcd"))
            .env_clear()
            .arg(format!("--name=m{index}"))
            .arg(format!("--data-dir={}", self.dir.path().join(format!("m{index}")).display()))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster={}", cluster.join(",")))
            .args(["--logger=zap", "--log-level=error"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd starts");
        member.process = Some(process);
    }

    fn wait(&self, index: usize) {
        let start = Instant::now();
        let to = format!("127.0.0.1:{}", self.members[index].client);
        while !self.try_ctl(&to, &["get", "x"], None).status.success() {
            assert!(start.elapsed() < Duration::from_mins(1), "member {index} does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends a member without warning.
    pub fn kill(&mut self, index: usize) {
        if let Some(mut process) = self.members[index].process.take() {
            // It may have ended by itself already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (0..3).for_each(|i| self.kill(i));
    }
}
