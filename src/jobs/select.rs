//! What is selected → what to ask a source for.

use crate::resource::Selection;
use crate::source::Query;

impl Selection {
    /// The key ranges to read. They may hold more than what is selected.
    #[must_use]
    pub fn query(&self, revision: Option<i64>, ordered: bool) -> Query {
        Query { ranges: self.ranges(), revision, ordered }
    }
}
