//! Does the store honour `extra_filters[]`? Only VictoriaMetrics knows that parameter: any other store, or a proxy that drops
//! it, would show every tenant everybody's data without a word.
//!
//! The store is asked for the tenants that it knows, once under a filter that nothing can pass: it must name none. While it
//! is empty that proves nothing, so as long as it has not been proved each question asks again first.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use lifecycle::{CancellationToken, Ready};
use serde::Deserialize;

use super::{MetricsStore, Refusal};

const SENTENCE: &str = "the metrics store does not honour `extra_filters[]`, so tenants would see each other's data: use \
     VictoriaMetrics, and nothing before it that drops this parameter; queries are refused until then";
const AGAIN: Duration = Duration::from_secs(5);
/// A store may be exchanged while we run.
const PROVED: Duration = Duration::from_secs(60);
/// No tenant's name has a space.
const NOBODY: &str = r#"{tenant="nobody can be called this"}"#;

const UNKNOWN: u8 = 0;
const HOLDS: u8 = 1;
const LEAKS: u8 = 2;

#[derive(Default)]
pub(super) struct Fence(AtomicU8);

#[derive(Deserialize)]
struct Names {
    data: Vec<String>,
}

/// Lets a question through when nothing can leak.
pub(super) async fn pass(store: &MetricsStore) -> Result<(), Refusal> {
    let state = match store.fence.0.load(Ordering::Acquire) {
        HOLDS => HOLDS,
        _ => look(store).await?,
    };
    if state == LEAKS {
        store.refused("filter_ignored");
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", SENTENCE));
    }
    Ok(())
}

pub(super) async fn watch(store: &MetricsStore, ready: &Ready, stopping: &CancellationToken) {
    let mut before = UNKNOWN;
    loop {
        // A store that is away shows nobody anything: its routes say so themselves.
        let state = look(store).await.unwrap_or(before);
        if state == LEAKS {
            ready.down(SENTENCE);
            if before != LEAKS {
                tracing::error!("{SENTENCE}");
            }
        } else {
            ready.up();
        }
        before = state;
        let pause = if state == HOLDS { PROVED } else { AGAIN };
        if stopping.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
    }
}

async fn look(store: &MetricsStore) -> Result<u8, Refusal> {
    let state = if !tenants(store, Some(NOBODY)).await?.is_empty() {
        LEAKS
    } else if tenants(store, None).await?.is_empty() {
        UNKNOWN
    } else {
        HOLDS
    };
    store.fence.0.store(state, Ordering::Release);
    Ok(state)
}

async fn tenants(store: &MetricsStore, filter: Option<&str>) -> Result<Vec<String>, Refusal> {
    let mut form = vec![("limit".to_owned(), "1".to_owned())];
    form.extend(filter.map(|filter| ("extra_filters[]".to_owned(), filter.to_owned())));
    let response = store.send("label/tenant/values", &form).await?;
    if !response.status().is_success() {
        return Err(store.reason(response).await);
    }
    response.json::<Names>().await.map(|names| names.data).map_err(|error| store.broke(&std::io::Error::other(error)))
}
