//! Where secrets come from: the environment, files, systemd credentials; only this file reads them.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use secrecy::SecretString;

use crate::document::{Level, Living, Secret, Secrets};

/// No secret is longer than this; a token with its catalogue is some kB.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Turns references into secrets.
#[derive(Debug)]
pub(super) struct Vault {
    /// What relative paths are relative to.
    pub(super) base: PathBuf,
    /// `allow_inline_secrets`.
    pub(super) inline: bool,
    /// How bad it is when a secret is not there: a check on another machine than the agent's has none of them.
    pub(super) absent: Level,
}

impl Secrets for Vault {
    fn resolve(&self, secret: &Secret) -> Result<SecretString, (Level, String, String)> {
        let absent = |message: String, help: String| (self.absent, message, help);
        match secret {
            Secret::Env(name) => {
                environment(name).map(SecretString::from).ok_or_else(|| {
                    absent(format!("the environment has no `{name}`"), format!("export {name}=…"))
                })
            }
            Secret::File(path) => {
                let path = self.base.join(path);
                read(&path).map_err(|error| {
                    absent(format!("`{}` cannot be read: {error}", path.display()), "relative paths are relative to the configuration file".into())
                })
            }
            Secret::Credential(name) => {
                let sound = !name.is_empty() && !name.contains('/') && !name.starts_with('.');
                if !sound {
                    return Err((Level::Error, format!("`{name}` is no name of a credential"), "the name in LoadCredential=NAME:PATH".into()));
                }
                let help = format!("under the unit it is the file /etc/jobwatch/secrets/{name}; for a command, CREDENTIALS_DIRECTORY=/etc/jobwatch/secrets");
                let Some(directory) = environment("CREDENTIALS_DIRECTORY") else {
                    return Err(absent("there are no systemd credentials here (no CREDENTIALS_DIRECTORY)".into(), help));
                };
                read(&credential(&directory, name))
                    .map_err(|error| absent(format!("the credential `{name}` cannot be read: {error}"), help))
            }
            Secret::Inline(text) if self.inline => Ok(SecretString::from(text.as_str())),
            Secret::Inline(_) => Err((
                Level::Error,
                "a secret stands here in plain text".into(),
                "write { env = \"NAME\" }, { file = \"PATH\" } or { credential = \"NAME\" }; [agent] allow_inline_secrets = true permits it".into(),
            )),
        }
    }

    fn living(&self, secret: &Secret) -> Option<Arc<dyn Living>> {
        let path = match secret {
            Secret::File(path) => self.base.join(path),
            Secret::Credential(name) => credential(&environment("CREDENTIALS_DIRECTORY")?, name),
            Secret::Env(_) | Secret::Inline(_) => return None,
        };
        Some(Arc::new(Place::of(path)))
    }

    fn variable(&self, name: &str) -> Option<String> {
        environment(name)
    }

    fn file(&self, path: &str) -> std::io::Result<(SecretString, Arc<dyn Living>)> {
        let path = self.base.join(path);
        Ok((read(&path)?, Arc::new(Place::of(path))))
    }
}

/// The file of a credential. Of `LoadCredential=secrets:DIRECTORY` systemd makes one for each file, which it names
/// `secrets_FILE`; one that has the very name comes first.
fn credential(directory: &str, name: &str) -> PathBuf {
    let exact = Path::new(directory).join(name);
    let gathered = Path::new(directory).join(format!("secrets_{name}"));
    if !exact.exists() && gathered.exists() { gathered } else { exact }
}

/// A file that may be written anew.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    seen: Mutex<Option<Stamp>>,
}

/// What changes when a file is written or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

impl Place {
    fn of(path: PathBuf) -> Self {
        let seen = Mutex::new(stamp(&path));
        Self { path, seen }
    }
}

pub(super) fn stamp(path: &Path) -> Option<Stamp> {
    let facts = std::fs::metadata(path).ok()?;
    Some(Stamp { modified: facts.modified().ok(), length: facts.len(), inode: facts.ino() })
}

impl Living for Place {
    fn fresh(&self) -> Option<SecretString> {
        let now = stamp(&self.path)?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == Some(now) {
            return None;
        }
        let text = read(&self.path).ok()?;
        *seen = Some(now);
        Some(text)
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A variable of the environment that is no secret, for the command line's defaults.
pub fn variable(name: &str) -> Option<String> {
    environment(name)
}

fn read(path: &Path) -> Result<SecretString, std::io::Error> {
    let mut text = String::new();
    File::open(path)?.take(SECRET_BYTES_MAX).read_to_string(&mut text)?;
    Ok(SecretString::from(text.trim_end_matches(['\r', '\n'])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_found_by_its_own_name_and_by_the_one_that_a_directory_gives_it() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().to_str().unwrap();
        let name = |name: &str| credential(place, name).strip_prefix(place).unwrap().to_str().unwrap().to_owned();
        assert_eq!(name("token"), "token");
        std::fs::write(directory.path().join("secrets_token"), "a").unwrap();
        assert_eq!(name("token"), "secrets_token");
        std::fs::write(directory.path().join("token"), "b").unwrap();
        assert_eq!(name("token"), "token");
    }
}
