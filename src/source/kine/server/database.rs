//! A server of SQL with kine's table, and its transactions.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::runtime::Runtime;

use super::connection::Connection;
use super::table::Within;
use super::{GOODBYE, ServerOptions, Target, sql};
use crate::source::kine::database::{Body, Database};
use crate::source::kine::table::COLUMNS;
use crate::source::{DatastoreError, SourceError, Visit};

/// A server with kine's table.
pub(super) struct Sql {
    /// `None` only while dropping.
    runtime: Option<Runtime>,
    options: ServerOptions,
    target: Arc<Target>,
    /// Between transactions.
    idle: Option<Connection>,
}

impl Sql {
    /// Connects, and looks whether the table is there.
    pub fn connect(options: &ServerOptions) -> Result<Self, SourceError> {
        let target = Arc::new(Target::new(options)?);
        let runtime = super::runtime()?;
        let mut server =
            Self { runtime: Some(runtime), options: options.clone(), target, idle: None };
        server.within(&mut |table| check(table))?;
        Ok(server)
    }

    /// Runs `body` in one transaction.
    fn within(
        &mut self,
        body: &mut dyn FnMut(&mut Within<'_>) -> Result<(), SourceError>,
    ) -> Result<(), SourceError> {
        let target = &self.target;
        let runtime = self.runtime.as_ref().ok_or_else(|| target.lost())?;
        let idle = self.idle.take();
        let begun: Result<Connection, DatastoreError> = runtime.block_on(async {
            if let Some(mut connection) = idle
                && connection.begin(target).await.is_ok()
            {
                return Ok(connection);
            }
            let mut connection = Connection::open(target).await?;
            connection.begin(target).await?;
            Ok(connection)
        });
        let mut table = Within { runtime, target, connection: Some(begun?) };
        body(&mut table)?;
        // Whoever had enough before the end has left the connection in the middle of an answer.
        if let Some(mut connection) = table.connection
            && runtime.block_on(connection.end(target)).is_ok()
        {
            self.idle = Some(connection);
        }
        Ok(())
    }
}

/// Refuses a database without kine's table.
fn check(table: &mut Within<'_>) -> Result<(), SourceError> {
    let at = table.target.at.clone();
    let mut columns = Vec::new();
    table.run(sql::columns(table.target.dialect()).to_owned(), &mut |row| {
        columns.push(row.name.clone().unwrap_or_default());
        std::ops::ControlFlow::Continue(())
    })?;
    if columns.is_empty() {
        return Err(DatastoreError::NoTable { at }.into());
    }
    let missing = |c: &&&str| !columns.iter().any(|have| have.eq_ignore_ascii_case(c.as_bytes()));
    match COLUMNS.iter().find(missing) {
        Some(column) => Err(DatastoreError::NoColumn { at, column }.into()),
        None => Ok(()),
    }
}

impl Drop for Sql {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Inside another runtime nobody can wait.
            let outside = tokio::runtime::Handle::try_current().is_err();
            if let Some(idle) = self.idle.take().filter(|_| outside) {
                let _ =
                    runtime.block_on(async { tokio::time::timeout(GOODBYE, idle.close()).await });
            }
            // Rows may be in flight that nobody wants any more.
            runtime.shutdown_background();
        }
    }
}

impl Database for Sql {
    fn name(&self) -> PathBuf {
        PathBuf::from(&self.target.at)
    }

    fn transaction(&mut self, body: &mut Body<'_>) -> Result<Visit, SourceError> {
        let mut visit = Visit::default();
        self.within(&mut |table| body(table, &mut visit))?;
        Ok(visit)
    }

    fn again(&self) -> Result<Box<dyn Database>, SourceError> {
        Ok(Box::new(Self::connect(&self.options)?))
    }
}
