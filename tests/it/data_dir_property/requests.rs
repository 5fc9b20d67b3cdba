//! Random requests of every kind that changes the key space.

use std::sync::atomic::{AtomicU64, Ordering};

use etcd_client::{
    AlarmAction, AlarmType, Client, CompactionOptions, Compare, CompareOp, DeleteOptions,
    GetOptions, LeaseGrantOptions, PutOptions, Txn, TxnOp,
};

use crate::support::random::Random;

/// Requests that were answered, with yes or no.
pub static SENT: AtomicU64 = AtomicU64::new(0);

const KEYS: usize = 40;
const LEASES: usize = 6;

pub struct Requests {
    random: Random,
    /// Leases run out while the server lives.
    expiring: bool,
    /// Values are large enough to fill segments of the log.
    large: bool,
    /// The newest revision seen.
    revision: i64,
    /// In a transaction that deletes, no put may rely on what is there: when the transaction has
    /// deleted it, etcd 3.5 ends with a panic, and again at every start.
    deletes: bool,
}

impl Requests {
    pub fn new(seed: u64, expiring: bool, large: bool) -> Self {
        Self { random: Random::new(seed), expiring, large, revision: 1, deletes: false }
    }

    fn key(&mut self) -> String {
        let n = self.random.below(KEYS);
        match n % 4 {
            0 => format!("/registry/configmaps/ns{}/c{n}", n % 3),
            1 => format!("other/{n}"),
            _ => format!("/registry/secrets/ns{}/s{n}", n % 3),
        }
    }

    fn lease(&mut self) -> i64 {
        1000 + i64::try_from(self.random.below(LEASES)).unwrap()
    }

    fn value(&mut self) -> Vec<u8> {
        let len = match self.random.below(20) {
            0 => 0,
            1 => 5000,
            2 => 100_000,
            3..8 if self.large => 1_400_000,
            _ => self.random.below(300),
        };
        let zeros = self.random.chance(30);
        let mut value = self.random.bytes(if zeros { len.min(64) } else { len });
        // Zero sectors, which a torn write has too.
        value.resize(len, 0);
        value
    }

    fn put_options(&mut self) -> (PutOptions, bool) {
        let mut options = PutOptions::new();
        let mut keeps = false;
        match self.random.below(10) {
            0..3 => options = options.with_lease(self.lease()),
            3..6 if self.deletes => {}
            3 => options = options.with_ignore_lease(),
            4 => {
                options = options.with_ignore_value();
                keeps = true;
            }
            5 => {
                options = options.with_ignore_value().with_lease(self.lease());
                keeps = true;
            }
            _ => {}
        }
        (options, keeps)
    }

    fn put(&mut self) -> (String, Vec<u8>, PutOptions) {
        let (options, keeps) = self.put_options();
        let value = if keeps { Vec::new() } else { self.value() };
        (self.key(), value, options)
    }

    fn delete(&mut self) -> (String, DeleteOptions) {
        let options = DeleteOptions::new();
        match self.random.below(12) {
            0 => ("/registry/secrets/ns1/".to_owned(), options.with_prefix()),
            1 => {
                let (a, b) = (self.key(), self.key());
                (a, options.with_range(b))
            }
            2 => (self.key(), options.with_from_key()),
            3 => (String::new(), options.with_all_keys()),
            _ => (self.key(), options),
        }
    }

    fn past(&mut self, most: usize) -> i64 {
        (self.revision - i64::try_from(self.random.below(most)).unwrap()).max(0)
    }

    fn compare(&mut self) -> Compare {
        let op = self.random.pick(&[
            CompareOp::Equal,
            CompareOp::Greater,
            CompareOp::Less,
            CompareOp::NotEqual,
        ]);
        let key = self.key();
        let few = i64::try_from(self.random.below(3)).unwrap();
        let compare = match self.random.below(5) {
            0 => Compare::version(key, op, few),
            1 => Compare::create_revision(key, op, self.past(50)),
            2 => Compare::mod_revision(key, op, if few == 0 { 0 } else { self.past(50) }),
            3 => Compare::lease(key, op, if few == 0 { 0 } else { self.lease() }),
            _ => {
                let len = self.random.below(4);
                Compare::value(key, op, self.random.bytes(len))
            }
        };
        match self.random.below(8) {
            0 => compare.with_prefix(),
            1 => compare.with_range(self.key()),
            2 => compare.with_range(vec![0]),
            _ => compare,
        }
    }

    fn txn(&mut self, depth: usize) -> Txn {
        let compares: Vec<_> = (0..self.random.below(3)).map(|_| self.compare()).collect();
        let [success, failure] = [0, 1].map(|_| {
            let count = self.random.below(4);
            (0..count).map(|_| self.operation(depth)).collect::<Vec<_>>()
        });
        Txn::new().when(compares).and_then(success).or_else(failure)
    }

    fn operation(&mut self, depth: usize) -> TxnOp {
        match self.random.below(10) {
            0 => {
                let at = match self.random.below(4) {
                    0 => self.past(60),
                    1 => self.revision + 100_000,
                    _ => 0,
                };
                let options = GetOptions::new().with_revision(at).with_prefix();
                TxnOp::get("/registry/", Some(options))
            }
            1..3 if self.deletes => {
                let (key, options) = self.delete();
                TxnOp::delete(key, Some(options))
            }
            3..5 if depth < 3 => TxnOp::txn(self.txn(depth + 1)),
            _ => {
                let (key, value, options) = self.put();
                TxnOp::put(key, value, Some(options))
            }
        }
    }

    /// Sends one request. Its refusal is as good as its success.
    pub async fn send(&mut self, client: &mut Client) {
        let answered = match self.random.below(100) {
            0..45 => {
                let (key, value, options) = self.put();
                client.put(key, value, Some(options)).await.map(|a| a.header().cloned()).is_ok()
            }
            45..55 => {
                let (key, options) = self.delete();
                client.delete(key, Some(options)).await.is_ok()
            }
            55..85 => {
                self.deletes = self.random.chance(60);
                let txn = self.txn(0);
                self.deletes = false;
                match client.txn(txn).await {
                    Ok(answer) => {
                        self.revision = answer
                            .header()
                            .map_or(self.revision, etcd_client::ResponseHeader::revision);
                        true
                    }
                    Err(_) => false,
                }
            }
            85..88 => {
                let physical = self.random.chance(50);
                let mut options = CompactionOptions::new();
                if physical {
                    options = options.with_physical();
                }
                let at = self.past(120);
                client.compact(at, Some(options)).await.is_ok()
            }
            88..93 => {
                let ttl = if self.expiring { 1 } else { 3600 };
                let options = LeaseGrantOptions::new().with_id(self.lease());
                client.lease_grant(ttl, Some(options)).await.is_ok()
            }
            93..97 => {
                let lease = self.lease();
                client.lease_revoke(lease).await.is_ok()
            }
            97 => client.defragment().await.is_ok(),
            _ => self.disarm(client).await,
        };
        SENT.fetch_add(u64::from(answered), Ordering::Relaxed);
    }

    /// Clears the alarm for space, if it was raised.
    async fn disarm(&mut self, client: &mut Client) -> bool {
        let raised = match client.alarm(AlarmAction::Get, AlarmType::None, None).await {
            Ok(answer) => answer.alarms().first().map(etcd_client::AlarmMember::member_id),
            Err(_) => return false,
        };
        let Some(member) = raised else { return false };
        let mut options = etcd_client::AlarmOptions::new();
        options.with_member(member);
        client.alarm(AlarmAction::Deactivate, AlarmType::Nospace, Some(options)).await.is_ok()
    }
}
