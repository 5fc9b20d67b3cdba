//! The stores, set up as their own tools are: by variables of the environment.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{BackoffConfig, ObjectStore, Result, RetryConfig};

use super::Options;
use super::address::{Address, Scheme};
use super::http::Client;

/// A person waits: what a few attempts do not bring is told.
const RETRY: RetryConfig = RetryConfig {
    backoff: BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(5),
        base: 2.,
    },
    max_retries: 3,
    retry_timeout: Duration::from_mins(1),
};

/// The store of an address.
pub(super) fn open(
    address: &Address,
    options: &Options,
    client: &Client,
) -> Result<Arc<dyn ObjectStore>> {
    let variables = |family: &'static str| {
        options
            .environment
            .iter()
            .filter(move |(name, value)| name.starts_with(family) && !value.is_empty())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
    };
    Ok(match address.scheme {
        Scheme::S3 | Scheme::Https => {
            let mut builder = AmazonS3Builder::new();
            for (name, value) in variables("AWS_") {
                if let Ok(key) = name.parse::<AmazonS3ConfigKey>() {
                    builder = builder.with_config(key, value);
                }
            }
            let builder = builder.with_bucket_name(&address.bucket).with_retry(RETRY);
            Arc::new(builder.with_http_connector(client.clone()).build()?)
        }
        Scheme::Gs => {
            let mut builder = GoogleCloudStorageBuilder::new();
            for (name, value) in variables("GOOGLE_") {
                if let Ok(key) = name.parse::<GoogleConfigKey>() {
                    builder = builder.with_config(key, value);
                }
            }
            let builder = builder.with_bucket_name(&address.bucket).with_retry(RETRY);
            Arc::new(builder.with_http_connector(client.clone()).build()?)
        }
        Scheme::Az => {
            let mut builder = MicrosoftAzureBuilder::new();
            for (name, value) in variables("AZURE_") {
                for (name, value) in azure(&name, value) {
                    if let Ok(key) = name.parse::<AzureConfigKey>() {
                        builder = builder.with_config(key, value);
                    }
                }
            }
            let builder = builder.with_container_name(&address.bucket).with_retry(RETRY);
            Arc::new(builder.with_http_connector(client.clone()).build()?)
        }
    })
}

/// The variables that Azure's own tool knows (`az storage blob download --help`) by the crate's
/// names.
fn azure(name: &str, value: String) -> Vec<(String, String)> {
    match name {
        "azure_storage_account" => vec![("azure_storage_account_name".to_owned(), value)],
        "azure_storage_key" => vec![("azure_storage_account_key".to_owned(), value)],
        "azure_storage_connection_string" => value
            .split(';')
            .filter_map(|part| part.split_once('='))
            .filter_map(|(field, value)| {
                let name = match field {
                    "AccountName" => "azure_storage_account_name",
                    "AccountKey" => "azure_storage_account_key",
                    "SharedAccessSignature" => "azure_storage_sas_token",
                    "BlobEndpoint" => "azure_storage_endpoint",
                    _ => return None,
                };
                Some((name.to_owned(), value.to_owned()))
            })
            .collect(),
        _ => vec![(name.to_owned(), value)],
    }
}
