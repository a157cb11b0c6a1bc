//! What a fresh database needs before anybody can log in: a signing key, a secret for marks, and an admin.
//!
//! Under one lock, so that replicas that start together make one of each.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use authn::Signer;
use seal::Seal;

use crate::login::DEFAULT_TENANT;
use crate::marks::Marks;
use crate::password::{self, Hasher};
use crate::store::Bootstrap;

/// Name of the first user.
pub const ADMIN: &str = "admin";
/// The floor for a password that somebody else chose.
const SHORTEST: usize = 12;
/// Name of the secret that marks are made with.
const MARKS: &str = "marks";

/// Makes sure that there are a signing key, the secret for marks, which it gives, and an admin. Seals what was kept in clear
/// before there was a key to seal with.
///
/// # Errors
/// Says what to set when there is no admin and no password for one, or when keys are sealed and there is no key to open
/// them; Postgres; the password's file.
pub async fn prepare(
    pool: &store::Pool,
    hasher: &Hasher,
    seal: &Seal,
    password_file: Option<&Path>,
) -> anyhow::Result<Marks> {
    let mut bootstrap = Bootstrap::begin(pool).await.context("lock the first start")?;
    let made_key = prepare_keys(&mut bootstrap, seal).await?;
    let marks = prepare_marks(&mut bootstrap, seal).await?;
    let made_admin = !bootstrap.has_admin().await.context("look for an admin")?;
    if made_admin {
        let hash = hasher.hash(&initial_password(password_file)?).await?;
        bootstrap.create_admin(DEFAULT_TENANT, ADMIN, &hash).await.context("create the admin")?;
    }
    bootstrap.commit().await.context("finish the first start")?;
    if let Some(key) = made_key {
        tracing::info!(key, "made a signing key");
    }
    if made_admin {
        tracing::info!(username = ADMIN, ?password_file, "made the first admin; the password is in the file");
    }
    if !seal.has_key() {
        tracing::warn!(
            "signing keys lie in Postgres in clear: whoever reads a backup can be anybody; set \
             SIGHTLINE_AUTH_ENCRYPTION_KEY_FILE"
        );
    }
    Ok(marks)
}

/// The id of the key that had to be made.
async fn prepare_keys(bootstrap: &mut Bootstrap, seal: &Seal) -> anyhow::Result<Option<String>> {
    let keys = bootstrap.keys().await.context("load the signing keys")?;
    for (id, kept) in keys.iter().filter(|(_, kept)| seal.has_key() && !kept.sealed) {
        bootstrap.keep_key(id, &seal.close(id, &kept.bytes)?).await.context("seal a signing key")?;
        tracing::info!(key = id, "a signing key that lay in clear is encrypted from now on");
    }
    if !keys.is_empty() {
        return Ok(None);
    }
    let signer = Signer::generate()?;
    let kept = seal.close(signer.key_id(), signer.pkcs8())?;
    bootstrap.keep_key(signer.key_id(), &kept).await.context("keep the signing key")?;
    Ok(Some(signer.key_id().to_owned()))
}

async fn prepare_marks(bootstrap: &mut Bootstrap, seal: &Seal) -> anyhow::Result<Marks> {
    let secrets = bootstrap.secrets().await.context("load the secrets")?;
    if let Some((_, kept)) = secrets.iter().find(|(name, _)| name == MARKS) {
        let secret = seal.open(MARKS, kept)?;
        if seal.has_key() && !kept.sealed {
            bootstrap.keep_secret(MARKS, &seal.close(MARKS, &secret)?).await.context("seal a secret")?;
        }
        return Ok(Marks::new(&secret));
    }
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).context("get random bytes")?;
    bootstrap.keep_secret(MARKS, &seal.close(MARKS, &secret)?).await.context("keep a secret")?;
    Ok(Marks::new(&secret))
}

/// The password in the file, or a new one that is in the file from now on: written before the admin exists, so that a
/// crash in between leaves a password that the next start will use.
fn initial_password(path: Option<&Path>) -> anyhow::Result<String> {
    let Some(path) = path else {
        bail!(
            "there is no administrator yet: set SIGHTLINE_AUTH_INITIAL_PASSWORD_FILE to a file that holds a password \
             for the user `{ADMIN}`, or to one that does not exist, where a generated password will be written"
        );
    };
    let present = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let present = present.trim();
    if present.is_empty() {
        let password = password::generate()?;
        write(path, &password).with_context(|| format!("write {}", path.display()))?;
        return Ok(password);
    }
    let long_enough = present.chars().count() >= SHORTEST;
    ensure!(long_enough, "the password in {} has under {SHORTEST} characters; write a longer one", path.display());
    Ok(present.to_owned())
}

/// All or nothing, and never readable by others, not even for a moment.
fn write(path: &Path, password: &str) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let owner_only = fs::Permissions::from_mode(0o600);
    let mut file = tempfile::Builder::new().prefix(".password-").permissions(owner_only).tempfile_in(folder)?;
    writeln!(file, "{password}")?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_password_is_for_its_owner_alone_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets").join("admin");
        let password = initial_password(Some(&path)).unwrap();
        assert!(password.len() >= 24);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(initial_password(Some(&path)).unwrap(), password);
    }

    #[test]
    fn a_file_that_is_empty_is_filled_and_closed_to_others() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).unwrap();
        initial_password(Some(file.path())).unwrap();
        assert_eq!(fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_short_password_is_refused_without_showing_it() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "hunter2").unwrap();
        let error = format!("{:#}", initial_password(Some(file.path())).unwrap_err());
        assert!(error.contains("under 12") && !error.contains("hunter2"), "{error}");
    }
}
