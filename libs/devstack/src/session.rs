//! The development admin's login and the agent's credential, over the public API.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::http;

pub const ADMIN: &str = "admin";
const TIMEOUT: Duration = Duration::from_secs(10);

/// An access token for the first administrator. `api` is the api-gateway's `host:port`.
pub fn login(api: &str, password_file: &Path) -> Result<String> {
    let password =
        std::fs::read_to_string(password_file).with_context(|| format!("read {}", password_file.display()))?;
    let body = json!({"username": ADMIN, "password": password.trim_end()});
    let answer = post(api, "/api/v1/auth/login", None, &body).context("log in")?;
    text(&answer, "access_token").context("log in")
}

/// A credential for the agent `id`.
pub fn agent_token(api: &str, access_token: &str, id: &str) -> Result<String> {
    let path = format!("/api/v1/agents/{id}/token");
    let answer = post(api, &path, Some(access_token), &json!({})).context("ask for the agent's token")?;
    text(&answer, "token").context("ask for the agent's token")
}

/// Readable for the owner alone, from its first byte on; replaced in one step.
pub fn write_secret(path: &Path, secret: &str) -> Result<()> {
    let beside = path.with_extension("new");
    let _ = std::fs::remove_file(&beside);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)
        .with_context(|| format!("create {}", beside.display()))?;
    file.write_all(secret.as_bytes()).with_context(|| format!("write {}", beside.display()))?;
    std::fs::rename(&beside, path).with_context(|| format!("put {} in its place", path.display()))
}

/// A key to encrypt with, made where there is none yet.
pub fn ensure_key(path: &Path) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let mut bytes = [0; 32];
    let mut source = std::fs::File::open("/dev/urandom").context("open /dev/urandom")?;
    source.read_exact(&mut bytes).context("read /dev/urandom")?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    write_secret(path, &text)
}

fn post(api: &str, path: &str, bearer: Option<&str>, body: &Value) -> Result<Value> {
    let response = http::post_json(api, path, bearer, body, TIMEOUT)?;
    let answer: Value = serde_json::from_str(&response.body).unwrap_or_default();
    if !(200..300).contains(&response.status) {
        let detail = answer["detail"].as_str().unwrap_or_else(|| response.body.trim());
        bail!("{path} answers {}: {detail}", response.status);
    }
    Ok(answer)
}

fn text(answer: &Value, field: &str) -> Result<String> {
    answer[field].as_str().map(str::to_owned).with_context(|| format!("find {field} in the answer"))
}
