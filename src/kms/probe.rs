//! Everything that a plugin can be asked for, asked once.

use std::time::{Duration, Instant};

use super::KmsError;
use super::client::{self, Client, shown};
use super::proto::v2;
use crate::config::Kms;
use crate::envelope::Version;
use crate::secret::KeyMaterial;

/// How long the calls of a [`Probe`] took; `None` where one was not made or not answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Connecting to the socket.
    pub connect: Option<Duration>,
    /// Status (v2) or Version (v1).
    pub status: Option<Duration>,
    /// Encrypt.
    pub encrypt: Option<Duration>,
    /// Decrypt.
    pub decrypt: Option<Duration>,
}

/// What a plugin said. Nothing of it is secret: the bytes that were encrypted are random and
/// thrown away.
#[derive(Clone, Debug, Default)]
pub struct Probe {
    /// Version of the protocol that it answers.
    pub protocol: Option<String>,
    /// v1: name and version of what it runs on.
    pub runtime: Option<String>,
    /// v2: its health, `ok` or something else.
    pub healthz: Option<String>,
    /// v2: the key ID that Status names.
    pub key_id: Option<String>,
    /// v2: the key ID that Encrypt wrote with.
    pub encrypt_key_id: Option<String>,
    /// v2: names of the annotations that Encrypt returned.
    pub annotations: Vec<String>,
    /// How long it took.
    pub times: Times,
    /// Random bytes came back from Encrypt and Decrypt as they were; `None` where it did not get
    /// that far.
    pub round_trip: Option<bool>,
    /// The first reason why the API server could not use it.
    pub error: Option<KmsError>,
}

impl Probe {
    /// Whether the API server could use it.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.error.is_none() && self.round_trip == Some(true)
    }

    pub(super) async fn of(settings: &Kms) -> Self {
        let mut probe = Self::default();
        if let Err(error) = probe.ask(settings).await {
            probe.fails(error);
        }
        probe
    }

    fn fails(&mut self, error: KmsError) {
        self.error.get_or_insert(error);
    }

    async fn ask(&mut self, settings: &Kms) -> Result<(), KmsError> {
        let began = Instant::now();
        let mut client = Client::open(settings).await?;
        self.times.connect = Some(began.elapsed());
        let began = Instant::now();
        let first = match settings.api_version {
            Version::V1 => self.version(&client).await?,
            Version::V2 => self.status(&mut client).await?,
        };
        self.times.status = Some(began.elapsed());
        // Whoever is not healthy may still decrypt, and that is worth knowing.
        if let Err(error) = first {
            self.fails(error);
        }
        let random = KeyMaterial::random().map_err(|e| client.unusable(e.to_string()))?;
        let back = match settings.api_version {
            Version::V1 => self.around_v1(&client, &random).await?,
            Version::V2 => self.around_v2(&client, &random).await?,
        };
        self.round_trip = Some(back.same(&random));
        if !back.same(&random) {
            self.fails(client.unusable("it decrypts to other bytes than were encrypted".into()));
        }
        Ok(())
    }

    async fn version(&mut self, client: &Client) -> Result<Result<(), KmsError>, KmsError> {
        let answer = client.version().await?;
        self.protocol = Some(shown(&answer.version));
        let runtime = format!("{} {}", answer.runtime_name, answer.runtime_version);
        self.runtime = Some(shown(runtime.trim()));
        Ok(client.judge_version(&answer))
    }

    async fn status(&mut self, client: &mut Client) -> Result<Result<(), KmsError>, KmsError> {
        let answer = client.first_status().await?;
        self.protocol = Some(shown(&answer.version));
        self.healthz = Some(shown(&answer.healthz));
        let verdict = client.judge_status(&answer);
        // What is no key ID may be megabytes.
        self.key_id = Some(answer.key_id).filter(|id| super::validate_key_id(id).is_ok());
        Ok(verdict)
    }

    async fn around_v1(
        &mut self,
        client: &Client,
        random: &KeyMaterial,
    ) -> Result<KeyMaterial, KmsError> {
        let began = Instant::now();
        let wrapped = client.encrypt_v1(random.clone()).await?;
        self.times.encrypt = Some(began.elapsed());
        let began = Instant::now();
        let back = client.decrypt_v1(wrapped).await?;
        self.times.decrypt = Some(began.elapsed());
        Ok(back)
    }

    async fn around_v2(
        &mut self,
        client: &Client,
        random: &KeyMaterial,
    ) -> Result<KeyMaterial, KmsError> {
        let began = Instant::now();
        let sealed = client.encrypt_v2(random.clone()).await?;
        self.times.encrypt = Some(began.elapsed());
        self.annotations = sealed.annotations.iter().map(|(name, _)| name.clone()).collect();
        self.annotations.sort_unstable();
        self.encrypt_key_id = Some(sealed.key_id.clone());
        if self.key_id.as_deref() != Some(&*sealed.key_id) {
            let cause = "it encrypts with another key ID than Status names".to_owned();
            self.fails(client.unusable(cause));
        }
        let request = v2::DecryptRequest {
            ciphertext: sealed.source,
            uid: client::uid(),
            key_id: sealed.key_id,
            annotations: sealed.annotations.into_iter().collect(),
        };
        let began = Instant::now();
        let back = client.decrypt_v2(request).await?;
        self.times.decrypt = Some(began.elapsed());
        Ok(back)
    }
}
