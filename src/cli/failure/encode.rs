//! What `encode` cannot do.

use super::Failure;
use crate::jobs::encode::Error;

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        match &e {
            Error::Key(text) => Self::usage(text.clone())
                .hint("write it like /registry/secrets/default/login or secrets/default/login"),
            Error::NoKey(_) => Self::usage(e.to_string()),
            Error::UnknownKey => Self::usage(e.to_string())
                .hint("give it with --key: it is authenticated with the value"),
            Error::NoNamespace(_) => Self::new(e.to_string()).hint("give it with -n NAMESPACE"),
            _ => Self::new(e.to_string()).because(&e),
        }
    }
}
