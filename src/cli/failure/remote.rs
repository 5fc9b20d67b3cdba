//! What to do about objects that cannot be fetched.

use super::Failure;
use crate::remote::RemoteError;

impl From<&RemoteError> for Failure {
    fn from(e: &RemoteError) -> Self {
        let failure = match e {
            RemoteError::Address { .. }
            | RemoteError::NoListing { .. }
            | RemoteError::ReadOnly { .. } => Self::usage(e.to_string()),
            _ => Self::new(e.to_string()),
        };
        let failure = match std::error::Error::source(e) {
            Some(cause) => failure.because(cause),
            None => failure,
        };
        failure.hint(hint(e))
    }
}

fn hint(e: &RemoteError) -> &'static str {
    match e {
        RemoteError::Address { .. } => {
            "write s3://BUCKET/KEY, gs://BUCKET/KEY, az://CONTAINER/KEY or https://HOST/PATH"
        }
        RemoteError::NoListing { .. } => "name each file, or copy them into one directory",
        RemoteError::ReadOnly { .. } => "give a directory, s3://, gs:// or az://",
        RemoteError::NotFound { .. } => "check the spelling, and the account or endpoint",
        RemoteError::TooMany { .. } => "name a longer prefix",
        RemoteError::TooLarge { .. } => "give the etcd snapshot itself",
        RemoteError::CutShort { .. } => "run it again",
        RemoteError::NoRoom { .. } => "point TMPDIR to a directory with room for it",
        RemoteError::Setup { .. } => "check SSL_CERT_FILE and AWS_CA_BUNDLE",
        RemoteError::Denied { service, .. } => credentials(service),
        RemoteError::Failed { service, .. } | RemoteError::Unwritten { service, .. } => {
            reaching(service)
        }
    }
}

fn credentials(service: &str) -> &'static str {
    match service {
        "S3" => {
            "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION (`aws configure export-credentials --format env` prints those of a profile); AWS_SKIP_SIGNATURE=true reads a public bucket"
        }
        "Azure" => {
            "set AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN; AZURE_SKIP_SIGNATURE=true reads a public container"
        }
        "Google Cloud Storage" => {
            "set GOOGLE_APPLICATION_CREDENTIALS, or log in with `gcloud auth application-default login`; GOOGLE_SKIP_SIGNATURE=true reads a public bucket"
        }
        _ => "a signed address may have run out",
    }
}

fn reaching(service: &str) -> &'static str {
    match service {
        "S3" => {
            "check AWS_REGION and the credentials; AWS_ENDPOINT_URL names another server of the protocol, AWS_ALLOW_HTTP=true allows one without TLS, SSL_CERT_FILE names its CA"
        }
        "Azure" => {
            "check AZURE_STORAGE_ACCOUNT and the credentials; AZURE_STORAGE_ENDPOINT names another server, AZURE_ALLOW_HTTP=true allows one without TLS"
        }
        "Google Cloud Storage" => "check the credentials, and that the machine reaches the service",
        _ => "SSL_CERT_FILE names the CA of the server's certificate",
    }
}
