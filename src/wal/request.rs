//! What a raft entry asks etcd to do.
//!
//! Source: etcd-io/etcd `api/etcdserverpb/{raft_internal,rpc,etcdserver}.proto`. Fields that
//! change nothing in the key space are skipped.

use crate::proto::{Field, Fields, Malformed};

/// Transactions nest; deeper than this is damage.
const DEEPEST: usize = 32;

/// A decoded request. Its values may be secrets.
#[derive(Clone, PartialEq, Eq)]
pub enum Request<'a> {
    /// The entry of a new leader, which asks nothing.
    Nothing,
    /// Write a key.
    Put(Put<'a>),
    /// Delete keys.
    Delete(Span<'a>),
    /// Compare, then do one of two lists.
    Txn(Txn<'a>),
    /// Forget revisions before this one.
    Compact(i64),
    /// A lease comes into being: its ID.
    LeaseGrant(i64),
    /// A lease and its keys go: its ID.
    LeaseRevoke(i64),
    /// An alarm is raised or cleared.
    Alarm {
        /// Raised, not cleared.
        raise: bool,
        /// The member it is about.
        member: u64,
        /// 1: no space; 2: corruption.
        kind: u64,
    },
    /// From now on requests need permissions, or no longer.
    Auth(bool),
    /// A request of the old store, for membership and version.
    Legacy,
    /// Any other request; none of them changes the key space.
    Other(u32),
}

/// `PutRequest`.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Put<'a> {
    /// The full etcd key.
    pub key: &'a [u8],
    /// The stored value.
    pub value: &'a [u8],
    /// Lease id, 0 for none.
    pub lease: i64,
    /// Keep the value.
    pub ignore_value: bool,
    /// Keep the lease.
    pub ignore_lease: bool,
}

/// Keys of a request, as etcd's `key` and `range_end` give them.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Span<'a> {
    /// First key.
    pub key: &'a [u8],
    /// Empty: only `key`; one zero byte: to the last key; else the end, exclusive.
    pub end: &'a [u8],
}

/// `TxnRequest`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Txn<'a> {
    /// All must hold.
    pub compares: Vec<Compare<'a>>,
    /// Done when they do.
    pub success: Vec<Op<'a>>,
    /// Done when they do not.
    pub failure: Vec<Op<'a>>,
}

/// One operation of a transaction.
#[derive(Clone, PartialEq, Eq)]
pub enum Op<'a> {
    /// Read at a revision, 0 for the newest.
    Range(i64),
    /// Write a key.
    Put(Put<'a>),
    /// Delete keys.
    Delete(Span<'a>),
    /// A transaction in the transaction.
    Txn(Txn<'a>),
}

/// What a comparison looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compared<'a> {
    /// The key's version.
    Version(i64),
    /// The revision that created it.
    Create(i64),
    /// The revision that changed it last.
    Mod(i64),
    /// Its value.
    Value(&'a [u8]),
    /// Its lease.
    Lease(i64),
}

/// How a comparison must come out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Relation {
    /// As asked.
    Equal,
    /// Greater than asked.
    Greater,
    /// Less than asked.
    Less,
    /// Other than asked.
    NotEqual,
}

/// `Compare`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Compare<'a> {
    /// The keys; each must fulfil it.
    pub span: Span<'a>,
    /// What is compared with what.
    pub target: Compared<'a>,
    /// The required outcome.
    pub relation: Relation,
}

/// Reads the data of a normal entry.
///
/// # Errors
/// When the bytes are no request of any version.
pub fn decode(data: &[u8]) -> Result<Request<'_>, Malformed> {
    if data.is_empty() {
        return Ok(Request::Nothing);
    }
    if is_legacy(data) {
        return Ok(Request::Legacy);
    }
    let mut request = Request::Nothing;
    for field in Fields::new(data) {
        let field = field?;
        request = match field.number {
            // The ID, and a header with the ID and the user.
            1 | 100 => continue,
            4 => Request::Put(put(inner(&field)?)?),
            5 => Request::Delete(span(inner(&field)?)?),
            6 => Request::Txn(txn(inner(&field)?, 0)?),
            7 => Request::Compact(number(inner(&field)?, 1)?),
            8 => Request::LeaseGrant(number(inner(&field)?, 2)?),
            9 => Request::LeaseRevoke(number(inner(&field)?, 1)?),
            10 => alarm(inner(&field)?)?,
            1000 => Request::Auth(true),
            1011 => Request::Auth(false),
            2 if is_legacy(inner(&field)?) => Request::Legacy,
            other => {
                // A string where a message is expected is not this kind of request.
                Fields::new(inner(&field)?).try_for_each(|f| f.map(|_| ()))?;
                Request::Other(other)
            }
        };
    }
    Ok(request)
}

/// Whether it is a request of the old store, which has its method where this one has a message.
fn is_legacy(data: &[u8]) -> bool {
    Fields::new(data).find_map(|f| f.ok().filter(|f| f.number == 2)).is_some_and(|method| {
        method.bytes().is_some_and(|m| {
            matches!(m, b"GET" | b"PUT" | b"POST" | b"DELETE" | b"QGET" | b"SYNC" | b"HEAD")
        })
    })
}

fn inner<'a>(field: &Field<'a>) -> Result<&'a [u8], Malformed> {
    field.bytes().ok_or(Malformed { offset: field.offset })
}

fn int64(field: &Field<'_>) -> Result<i64, Malformed> {
    field.int64().ok_or(Malformed { offset: field.offset })
}

/// The last value of one number field.
fn number(message: &[u8], wanted: u32) -> Result<i64, Malformed> {
    let mut found = 0;
    for field in Fields::new(message) {
        let field = field?;
        if field.number == wanted {
            found = int64(&field)?;
        }
    }
    Ok(found)
}

fn put(message: &[u8]) -> Result<Put<'_>, Malformed> {
    let mut put = Put::default();
    for field in Fields::new(message) {
        let field = field?;
        match field.number {
            1 => put.key = inner(&field)?,
            2 => put.value = inner(&field)?,
            3 => put.lease = int64(&field)?,
            5 => put.ignore_value = int64(&field)? != 0,
            6 => put.ignore_lease = int64(&field)? != 0,
            _ => {}
        }
    }
    Ok(put)
}

fn span(message: &[u8]) -> Result<Span<'_>, Malformed> {
    let mut span = Span::default();
    for field in Fields::new(message) {
        let field = field?;
        match field.number {
            1 => span.key = inner(&field)?,
            2 => span.end = inner(&field)?,
            _ => {}
        }
    }
    Ok(span)
}

fn alarm(message: &[u8]) -> Result<Request<'_>, Malformed> {
    let action = number(message, 1)?;
    let (member, kind) = (number(message, 2)?.cast_unsigned(), number(message, 3)?.cast_unsigned());
    Ok(match action {
        1 => Request::Alarm { raise: true, member, kind },
        2 => Request::Alarm { raise: false, member, kind },
        _ => Request::Other(10),
    })
}

fn txn(message: &[u8], depth: usize) -> Result<Txn<'_>, Malformed> {
    let mut txn = Txn::default();
    for field in Fields::new(message) {
        let field = field?;
        match field.number {
            1 => txn.compares.push(compare(inner(&field)?)?),
            2 => txn.success.extend(op(inner(&field)?, depth)?),
            3 => txn.failure.extend(op(inner(&field)?, depth)?),
            _ => {}
        }
    }
    Ok(txn)
}

fn op(message: &[u8], depth: usize) -> Result<Option<Op<'_>>, Malformed> {
    let mut op = None;
    for field in Fields::new(message) {
        let field = field?;
        op = match field.number {
            1 => Some(Op::Range(number(inner(&field)?, 4)?)),
            2 => Some(Op::Put(put(inner(&field)?)?)),
            3 => Some(Op::Delete(span(inner(&field)?)?)),
            4 if depth < DEEPEST => Some(Op::Txn(txn(inner(&field)?, depth + 1)?)),
            4 => return Err(Malformed { offset: field.offset }),
            _ => op,
        };
    }
    Ok(op)
}

fn compare(message: &[u8]) -> Result<Compare<'_>, Malformed> {
    let mut span = Span::default();
    let (mut result, mut kind) = (0, 0);
    // The value given for each kind of target; one that is not given is zero.
    let mut numbers = [0i64; 5];
    let mut value: &[u8] = &[];
    for field in Fields::new(message) {
        let field = field?;
        match field.number {
            1 => result = int64(&field)?,
            2 => kind = int64(&field)?,
            3 => span.key = inner(&field)?,
            4 => numbers[0] = int64(&field)?,
            5 => numbers[1] = int64(&field)?,
            6 => numbers[2] = int64(&field)?,
            7 => value = inner(&field)?,
            8 => numbers[4] = int64(&field)?,
            64 => span.end = inner(&field)?,
            _ => {}
        }
    }
    let end = Malformed { offset: message.len() };
    let target = match kind {
        0 => Compared::Version(numbers[0]),
        1 => Compared::Create(numbers[1]),
        2 => Compared::Mod(numbers[2]),
        3 => Compared::Value(value),
        4 => Compared::Lease(numbers[4]),
        _ => return Err(end),
    };
    let relation = match result {
        0 => Relation::Equal,
        1 => Relation::Greater,
        2 => Relation::Less,
        3 => Relation::NotEqual,
        _ => return Err(end),
    };
    Ok(Compare { span, target, relation })
}
