//! Sources that lie elsewhere: fetched once, whatever a command reads them for.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::Ctx;
use super::failure::Failure;

/// What was fetched: nameless files by what they are called.
#[derive(Clone, Default)]
pub struct Remotes(Arc<Mutex<BTreeMap<PathBuf, (PathBuf, File)>>>);

/// The file that an address names, and what to call it; `None` where `path` is a path.
///
/// # Errors
/// When it cannot be fetched.
#[cfg(feature = "remote")]
pub fn fetch(ctx: &Ctx, path: &Path) -> Result<Option<(PathBuf, File)>, Failure> {
    use std::sync::PoisonError;

    use crate::remote::{Address, Fetched};

    let Some(address) = Address::of(path) else { return Ok(None) };
    let address = address.map_err(|e| Failure::from(&e))?;
    let mut fetched = ctx.remote.0.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((name, file)) = fetched.get(path) {
        return Ok(Some((name.clone(), again(file)?)));
    }
    if ctx.ui.progress {
        ctx.ui.note(&format!("fetching {}", address.shown()));
    }
    let whole = access()?.fetch(&address, &|_| true, &mut |_| ()).map_err(|e| Failure::from(&e))?;
    let name = PathBuf::from(address.shown());
    let Fetched::Whole(file) = whole else { return Ok(None) };
    let copy = again(&file)?;
    fetched.insert(path.to_owned(), (name.clone(), file));
    Ok(Some((name, copy)))
}

/// The same file, from its beginning.
#[cfg(feature = "remote")]
fn again(file: &File) -> Result<File, Failure> {
    use std::io::Seek as _;
    let again = file.try_clone().and_then(|mut file| file.rewind().map(|()| file));
    again.map_err(|e| Failure::new("cannot read what was fetched").because(&e))
}

/// How stores are reached: as their own tools are told, by variables of the environment.
///
/// # Errors
/// When the certificate authorities cannot be read.
#[cfg(feature = "remote")]
pub fn access() -> Result<crate::remote::Remote, Failure> {
    use crate::remote::{Options, Remote};
    const FAMILIES: [&str; 3] = ["AWS_", "GOOGLE_", "AZURE_"];
    // A precaution: credentials stand there.
    let _ = crate::secret::harden();
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| FAMILIES.iter().any(|family| name.starts_with(family)))
        .collect();
    let named = ["SSL_CERT_FILE", "AWS_CA_BUNDLE"];
    let bundle = named.iter().find_map(|name| std::env::var_os(name).filter(|v| !v.is_empty()));
    let roots = bundle.map(PathBuf::from).map(|path| {
        std::fs::read(&path)
            .map_err(|e| Failure::new(format!("cannot read {}", path.display())).because(&e))
    });
    let options = Options { environment, roots: roots.transpose()?, largest: 0 };
    Remote::new(options).map_err(|e| Failure::from(&e))
}

/// As with the feature: addresses are known, and refused.
///
/// # Errors
/// When `path` is an address.
#[cfg(not(feature = "remote"))]
pub fn fetch(_ctx: &Ctx, path: &Path) -> Result<Option<(PathBuf, File)>, Failure> {
    if path.to_str().is_some_and(|text| text.contains("://")) {
        return Err(Failure::usage("this build reads files only")
            .hint("copy it here, or build with the feature `remote`"));
    }
    Ok(None)
}
