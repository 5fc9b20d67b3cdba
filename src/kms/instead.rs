//! Data keys from elsewhere than their plugins.

use std::sync::Arc;

#[cfg(feature = "escrow")]
use super::escrow::Escrow;
use super::{KmsError, Program, Sealed, Unwrap, WrappedKey};
use crate::config::Kms;
use crate::secret::KeyMaterial;

/// Takes data keys from an escrow, unwraps them by programs where there is one, and asks the
/// plugins for everything else: what they write with, and to wrap.
pub struct Instead {
    #[cfg(feature = "escrow")]
    escrow: Option<Arc<Escrow>>,
    programs: Vec<Program>,
    plugins: Arc<dyn Unwrap>,
}

impl Instead {
    /// Asks `plugins` for everything.
    #[must_use]
    pub fn of(plugins: Arc<dyn Unwrap>) -> Self {
        Self {
            #[cfg(feature = "escrow")]
            escrow: None,
            programs: Vec::new(),
            plugins,
        }
    }

    /// Looks into `escrow` before anybody is asked.
    #[cfg(feature = "escrow")]
    #[must_use]
    pub fn escrow(mut self, escrow: Arc<Escrow>) -> Self {
        self.escrow = Some(escrow);
        self
    }

    /// Has `program` unwrap the keys of its provider.
    #[must_use]
    pub fn program(mut self, program: Program) -> Self {
        self.programs.push(program);
        self
    }

    fn program_of(&self, plugin: &Kms) -> Option<&Program> {
        self.programs.iter().find(|p| p.provider() == plugin.name)
    }

    fn ask_v1(&self, plugin: &Kms, wrapped: &[u8]) -> Result<KeyMaterial, KmsError> {
        match self.program_of(plugin) {
            Some(program) => program.unwrap_v1(plugin, wrapped),
            None => self.plugins.unwrap_v1(plugin, wrapped),
        }
    }

    fn ask_v2(&self, plugin: &Kms, wrapped: WrappedKey<'_>) -> Result<KeyMaterial, KmsError> {
        match self.program_of(plugin) {
            Some(program) => program.unwrap_v2(plugin, wrapped),
            None => self.plugins.unwrap_v2(plugin, wrapped),
        }
    }
}

#[cfg(feature = "escrow")]
fn not_in_escrow(then: KmsError) -> KmsError {
    KmsError::NotInEscrow { then: Box::new(then) }
}

impl Unwrap for Instead {
    fn unwrap_v1(&self, plugin: &Kms, wrapped: &[u8]) -> Result<KeyMaterial, KmsError> {
        #[cfg(feature = "escrow")]
        if let Some(escrow) = &self.escrow {
            let kept = escrow.v1(&plugin.name, wrapped).map(Ok);
            return kept.unwrap_or_else(|| self.ask_v1(plugin, wrapped).map_err(not_in_escrow));
        }
        self.ask_v1(plugin, wrapped)
    }

    fn unwrap_v2(&self, plugin: &Kms, wrapped: WrappedKey<'_>) -> Result<KeyMaterial, KmsError> {
        #[cfg(feature = "escrow")]
        if let Some(escrow) = &self.escrow {
            let kept = escrow.v2(&plugin.name, wrapped).map(Ok);
            return kept.unwrap_or_else(|| self.ask_v2(plugin, wrapped).map_err(not_in_escrow));
        }
        self.ask_v2(plugin, wrapped)
    }

    fn key_id(&self, plugin: &Kms) -> Result<Arc<str>, KmsError> {
        self.plugins.key_id(plugin)
    }

    fn wrap_v1(&self, plugin: &Kms, data_key: &KeyMaterial) -> Result<Vec<u8>, KmsError> {
        self.plugins.wrap_v1(plugin, data_key)
    }

    fn seal_v2(&self, plugin: &Kms) -> Result<Arc<Sealed>, KmsError> {
        self.plugins.seal_v2(plugin)
    }
}
