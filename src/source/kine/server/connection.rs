//! A connection to a server of SQL.

use tokio::sync::mpsc::Sender;

use super::sql::Dialect;
use super::{Parts, Raw, Target, mysql, postgres};
use crate::source::DatastoreError;

/// A connection.
pub(super) enum Connection {
    Postgres(postgres::Connection),
    MySql(mysql::Connection),
}

impl Connection {
    pub async fn open(target: &Target) -> Result<Self, DatastoreError> {
        let open = async {
            Ok(match target.dialect() {
                Dialect::Postgres => Self::Postgres(postgres::Connection::open(target).await?),
                Dialect::MySql => Self::MySql(mysql::Connection::open(target).await?),
            })
        };
        tokio::time::timeout(target.dial_timeout, open).await.unwrap_or_else(|_| {
            Err(DatastoreError::Silent { at: target.at.clone(), within: target.dial_timeout })
        })
    }

    /// Begins a transaction that sees one moment and can write nothing.
    pub async fn begin(&mut self, target: &Target) -> Result<(), DatastoreError> {
        match self {
            Self::Postgres(c) => c.begin().await.map_err(|e| postgres::told(target, &e)),
            Self::MySql(c) => c.begin().await.map_err(|e| mysql::told(target, &e)),
        }
    }

    pub async fn end(&mut self, target: &Target) -> Result<(), DatastoreError> {
        match self {
            Self::Postgres(c) => c.end().await.map_err(|e| postgres::told(target, &e)),
            Self::MySql(c) => c.end().await.map_err(|e| mysql::told(target, &e)),
        }
    }

    pub async fn close(self) {
        match self {
            Self::Postgres(c) => c.close().await,
            Self::MySql(c) => c.close().await,
        }
    }

    /// Sends the rows of a query as they come.
    pub async fn stream(
        &mut self,
        target: &Target,
        sql: &str,
        send: &Sender<Vec<Raw>>,
    ) -> Result<(), DatastoreError> {
        let parts = Parts::new(send);
        match self {
            Self::Postgres(c) => c.stream(sql, parts).await.map_err(|e| postgres::told(target, &e)),
            Self::MySql(c) => c.stream(sql, parts).await.map_err(|e| mysql::told(target, &e)),
        }
    }
}
